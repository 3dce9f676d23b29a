//! A native XDP program that only passes. veth delivers what XDP sends (TX, redirect) only to
//! a device that has a native program itself.

use std::{
    ffi::{c_int, c_long},
    io, mem,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;

use crate::Namespace;

const BPF_PROG_LOAD: c_int = 5;
const BPF_LINK_CREATE: c_int = 28;
const BPF_LINK_UPDATE: c_int = 29;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `r0 = XDP_PASS; exit`, as the kernel's `struct bpf_insn`s.
const PROGRAM: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// The first fields of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    /// Log, kernel version, flags and name: none.
    unused: [u64; 5],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The first fields of `union bpf_attr` for BPF_LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The first fields of `union bpf_attr` for BPF_LINK_UPDATE.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// The program, loaded.
pub(crate) struct Pass(OwnedFd);

/// Where it is attached; it is detached when this is dropped.
pub(crate) struct Attached {
    link: OwnedFd,
    namespace: String,
}

impl Attached {
    /// Whether it is on a NIC in this namespace.
    pub(crate) fn is_in(&self, namespace: &Namespace) -> bool {
        self.namespace == namespace.name()
    }

    /// Has another native program in its place.
    pub(crate) fn replace(&self, program: BorrowedFd<'_>) -> Result<()> {
        let attr = LinkUpdate {
            link_fd: self.link.as_raw_fd() as u32,
            new_prog_fd: program.as_raw_fd() as u32,
            flags: 0,
            old_prog_fd: 0,
        };
        // SAFETY: the attributes are those of the command, and have no pointers.
        unsafe { call(BPF_LINK_UPDATE, &attr) }.context("cannot replace an XDP program")?;
        Ok(())
    }
}

impl Pass {
    pub(crate) fn load() -> Result<Self> {
        let attr = ProgLoad {
            prog_type: BPF_PROG_TYPE_XDP,
            insn_cnt: PROGRAM.len() as u32,
            insns: PROGRAM.as_ptr() as u64,
            license: c"MIT".as_ptr() as u64,
            unused: [0; 5],
            prog_ifindex: 0,
            // A program may only be replaced by one that says the same.
            expected_attach_type: BPF_XDP,
        };
        // SAFETY: the attributes are those of the command, and what they point to outlives it.
        let program = unsafe { bpf(BPF_PROG_LOAD, &attr) };
        Ok(Self(program.context("cannot load an XDP program")?))
    }

    /// Attaches it natively; it is detached when what is returned is closed.
    pub(crate) fn attach(&self, namespace: &Namespace, device: &str) -> Result<Attached> {
        namespace.run(|| {
            let attr = LinkCreate {
                prog_fd: self.0.as_raw_fd() as u32,
                target_ifindex: if_nametoindex(device)?,
                attach_type: BPF_XDP,
                flags: XDP_FLAGS_DRV_MODE,
            };
            // SAFETY: the attributes are those of the command, and have no pointers.
            let link = unsafe { bpf(BPF_LINK_CREATE, &attr) };
            let name = namespace.name();
            let link = link.with_context(|| {
                format!("cannot attach a native XDP program to {device} in {name}")
            })?;
            Ok(Attached {
                link,
                namespace: name.to_owned(),
            })
        })?
    }
}

/// bpf(2), for the commands that return a file descriptor.
///
/// # Safety
/// `attr` must be laid out as the kernel's attributes of `command`, its pointers valid.
unsafe fn bpf<T>(command: c_int, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: by the caller's promise.
    let fd = unsafe { call(command, attr)? };
    // SAFETY: the kernel made it for this call; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bpf(2).
///
/// # Safety
/// As for [`bpf`].
unsafe fn call<T>(command: c_int, attr: &T) -> io::Result<c_int> {
    // SAFETY: the kernel reads the attributes, whose size it is told.
    let result: c_long = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            mem::size_of::<T>(),
        )
    };
    match c_int::try_from(result).map_err(io::Error::other)? {
        result if result < 0 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}
