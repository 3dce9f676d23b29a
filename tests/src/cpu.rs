//! Which CPU does what.

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The last CPU that this process may run on.
///
/// # Errors
///
/// The kernel's.
pub fn last() -> Result<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut all = 0..CpuSet::count();
    all.rfind(|&cpu| allowed.is_set(cpu).unwrap_or(false))
        .context("no CPU is allowed")
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
