//! The BPF file system.

use std::path::Path;

use anyhow::{Context as _, bail};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// Where it belongs.
const PLACE: &str = "/sys/fs/bpf";

/// Sees to it that a directory that is to be made will be in a BPF file system.
///
/// # Errors
///
/// It would be in another, and is not where one could be mounted; or the kernel's.
pub(super) fn ensure(directory: &Path) -> anyhow::Result<()> {
    let there = directory.ancestors().find(|path| path.exists());
    let there = there.context("it is no absolute path")?;
    if statfs(there)?.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    if !directory.starts_with(PLACE) || directory == Path::new(PLACE) {
        bail!(
            "{} is in no BPF file system: choose a directory in one",
            there.display()
        );
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), PLACE, Some("bpf"), flags, Some("mode=0700")).with_context(|| {
        format!("mounting a BPF file system at {PLACE} (with \"\" nothing is pinned)")
    })?;
    tracing::info!("mounted a BPF file system at {PLACE}");
    Ok(())
}
