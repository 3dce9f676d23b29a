//! Makes the tables that are part of the XDP program, as long as the limits ask for.
//!
//! To the object's loader they are sections of the object: arrays of one value, as large as the
//! section says, which cannot be mapped. So they are made before, and pinned where the loader
//! finds them: in a BPF file system that is mounted nowhere and goes with its last descriptor.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::PathBuf,
};

use anyhow::{Context as _, ensure};
use lb_common::abi::{Plain, direct};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::mapped::{self, MappedArray};

/// The sections of the object that they are, and what they are called.
const SECTIONS: [(&str, &str); 4] = [
    (".bss.services_front", "SERVICES_FRONT"),
    (".bss.services", "SERVICES"),
    (".bss.slots", "SLOTS"),
    (".bss.backends", "BACKENDS"),
];

/// How many entries `SERVICES` has, a power of two, where indexes go up to `limit`.
pub(crate) fn services(limit: u32) -> u32 {
    (limit + 1).next_power_of_two()
}

/// Where the loader is to find them.
pub(crate) struct Direct {
    mount: OwnedFd,
}

impl Direct {
    /// None so far.
    ///
    /// # Errors
    ///
    /// The kernel's, in particular where it is older than Linux 5.2.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mount = || {
            let fs = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(fs.as_fd())?;
            fsmount(
                fs.as_fd(),
                FsMountFlags::FSMOUNT_CLOEXEC,
                MountAttrFlags::empty(),
            )
        };
        Ok(Self {
            mount: mount().context("a BPF file system of its own")?,
        })
    }

    /// Makes the table of a name, with `entries` values.
    ///
    /// # Errors
    ///
    /// The kernel's, or it is longer than its section: the loader writes the section's zeros into
    /// the table, and the kernel would read on behind them.
    pub(crate) fn make<T: Plain>(
        &self,
        name: &'static str,
        entries: u32,
    ) -> anyhow::Result<MappedArray<T>> {
        let make = || {
            let bytes = size_of::<T>() * entries as usize;
            ensure!(bytes <= direct::BYTES, "{bytes} are too many bytes");
            let (map, array) = mapped::one_value(name, entries)?;
            map.pin(self.pin(name))?;
            anyhow::Ok(array)
        };
        make().with_context(|| format!("making the table {name}"))
    }

    /// The sections, and where the table of each is pinned.
    pub(crate) fn sections(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let sections = SECTIONS.into_iter();
        sections.map(|(section, name)| (section, self.pin(name)))
    }

    fn pin(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.mount.as_raw_fd()))
    }
}
