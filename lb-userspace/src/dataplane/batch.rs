//! `bpf(2)` itself, for what aya does not offer: many map entries in one call, removing from a map
//! of maps, and detaching at once.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use lb_common::abi::Plain;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

/// The `batch` member of `union bpf_attr` (Linux 5.6).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The member of `union bpf_attr` for single entries.
#[repr(C)]
#[derive(Default)]
struct ElementAttributes {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The member of `union bpf_attr` for pinned objects.
#[repr(C)]
#[derive(Default)]
struct ObjectAttributes {
    pathname: u64,
    fd: u32,
    flags: u32,
}

/// The member of `union bpf_attr` for detaching (Linux 5.9).
#[repr(C)]
struct DetachAttributes {
    link_fd: u32,
}

/// # Safety
///
/// `attributes` is the member of `union bpf_attr` that `command` wants, and the buffers that
/// it names are as large as the command and the map make them.
unsafe fn bpf<A>(command: libc::c_long, attributes: &mut A) -> io::Result<()> {
    // SAFETY: by the caller's promise.
    unsafe { bpf_fd(command, attributes) }.map(drop)
}

/// What the command returns.
///
/// # Safety
///
/// As [`bpf`].
unsafe fn bpf_fd<A>(command: libc::c_long, attributes: &mut A) -> io::Result<RawFd> {
    // SAFETY: by the caller's promise; the kernel reads and writes `attributes` in its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<A>(),
        )
    };
    match result {
        0.. => Ok(result as RawFd),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Detaches a pinned link, at once: without this it goes some time after its last reference.
///
/// # Errors
///
/// The kernel's, in particular where there is no such link.
pub(crate) fn detach_link(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut object = ObjectAttributes {
        pathname: path.as_ptr() as u64,
        ..ObjectAttributes::default()
    };
    // SAFETY: a path that ends in zero; what is returned is a descriptor of our own.
    let link = unsafe { OwnedFd::from_raw_fd(bpf_fd(BPF_OBJ_GET, &mut object)?) };
    let mut detach = DetachAttributes {
        link_fd: link.as_raw_fd() as u32,
    };
    // SAFETY: the kernel refuses what is no link.
    unsafe { bpf(BPF_LINK_DETACH, &mut detach) }
}

/// Writes `values[i]` under `keys[i]`. For a map of maps the kernel waits for running
/// programs once, not once an entry.
///
/// # Errors
///
/// The kernel's; entries before the one that failed are written.
pub(crate) fn update<K: Plain, V: Plain>(
    map: impl AsFd,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    assert_eq!(keys.len(), values.len(), "a value for each key");
    if keys.is_empty() {
        return Ok(());
    }
    let mut attributes = Attributes {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len() as u32,
        map_fd: map.as_fd().as_raw_fd() as u32,
        ..Attributes::default()
    };
    // SAFETY: `count` keys and values, which the kernel only reads.
    unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut attributes) }
}

/// Removes an entry.
///
/// # Errors
///
/// The kernel's; `ENOENT` where there is none.
pub(crate) fn delete<K: Plain>(map: impl AsFd, key: &K) -> io::Result<()> {
    let mut attributes = ElementAttributes {
        map_fd: map.as_fd().as_raw_fd() as u32,
        key: std::ptr::from_ref(key) as u64,
        ..ElementAttributes::default()
    };
    // SAFETY: a key of the map's size, which the kernel only reads.
    unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attributes) }
}

/// The value under a key, if there is one. Does not count as a use in an LRU map.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn lookup<K: Plain, V: Plain>(map: impl AsFd, key: &K) -> io::Result<Option<V>> {
    let mut value = std::mem::MaybeUninit::<V>::uninit();
    let mut attributes = ElementAttributes {
        map_fd: map.as_fd().as_raw_fd() as u32,
        key: std::ptr::from_ref(key) as u64,
        value: value.as_mut_ptr() as u64,
        ..ElementAttributes::default()
    };
    // SAFETY: a key of the map's size, and room for its value.
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) } {
        // SAFETY: the kernel has written the value, and any bits are one.
        Ok(()) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives all entries of a hash map to `visit`, about `chunk` at a time. What changes
/// meanwhile may be seen or not.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn visit<K: Plain, V: Plain>(
    map: impl AsFd,
    chunk: usize,
    mut visit: impl FnMut(&K, &V),
) -> io::Result<()> {
    let mut chunk = chunk.max(1);
    // The kernel keeps its place here: four bytes for hash maps.
    let mut position = [0u64; 2];
    let mut first = true;
    loop {
        let mut keys = Vec::<K>::with_capacity(chunk);
        let mut values = Vec::<V>::with_capacity(chunk);
        let mut next = [0u64; 2];
        let mut attributes = Attributes {
            in_batch: if first { 0 } else { position.as_ptr() as u64 },
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: chunk as u32,
            map_fd: map.as_fd().as_raw_fd() as u32,
            ..Attributes::default()
        };
        // SAFETY: room for `count` keys and values.
        let done = match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) } {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // A bucket with more entries than fit.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && chunk < 1 << 20 => {
                chunk *= 2;
                continue;
            }
            Err(error) => return Err(error),
        };
        let count = attributes.count as usize;
        // SAFETY: the kernel has written `count` of each, and any bits are a value.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        for (key, value) in keys.iter().zip(&values) {
            visit(key, value);
        }
        if done {
            return Ok(());
        }
        position = next;
        first = false;
    }
}
