//! Which CPU does what.

use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The last CPU that this process may run on when it starts: it measures.
///
/// # Errors
///
/// There is none.
pub fn last() -> Result<usize> {
    allowed().next_back().context("no CPU is allowed")
}

/// The first one, for what must not disturb the last.
///
/// # Errors
///
/// There is none.
pub fn first() -> Result<usize> {
    allowed().next().context("no CPU is allowed")
}

fn allowed() -> impl DoubleEndedIterator<Item = usize> {
    // As it was before anything was pinned.
    static ALLOWED: OnceLock<CpuSet> = OnceLock::new();
    let allowed = ALLOWED.get_or_init(|| sched_getaffinity(Pid::this()).unwrap_or_default());
    (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false))
}

/// Has the calling thread, and those that it will start, run on this CPU alone.
///
/// # Errors
///
/// The kernel's.
pub fn pin(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}
