//! CPU time of a balancer: of the kernel's threads that poll its NICs, and of its processes.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use lab::Namespace;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::pinned::run;

/// Has threads of their own poll a NIC, on this CPU; which they are. Softirqs would run on the
/// account of whoever they interrupt.
pub(crate) fn poll_by_threads(namespace: &Namespace, device: &str, cpu: usize) -> Result<Vec<u32>> {
    let before = pollers()?;
    // It has a /sys of the namespace's; and it has ended when this goes on.
    let script = format!("echo 1 >/sys/class/net/{device}/threaded");
    let status = Command::new("ip")
        .args(["netns", "exec", namespace.name(), "sh", "-c", &script])
        .status()?;
    ensure!(status.success(), "no threads for {device}: {status}");
    let new: Vec<u32> = pollers()?.difference(&before).copied().collect();
    ensure!(!new.is_empty(), "no thread polls {device}: it has no NAPI");
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    for &thread in &new {
        sched_setaffinity(Pid::from_raw(thread as i32), &cpus)?;
    }
    Ok(new)
}

/// All threads that poll NICs.
fn pollers() -> Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let name = path.file_name().and_then(|name| name.to_str());
        if comm.starts_with("napi/")
            && let Some(pid) = name.and_then(|name| name.parse().ok())
        {
            found.insert(pid);
        }
    }
    Ok(found)
}

/// NAPI of a NIC without a program.
pub(crate) fn enable(namespace: &Namespace, device: &str) -> Result<()> {
    run(namespace, &format!("ethtool -K {device} gro on"))
}

/// Nanoseconds that a process, or a thread of the kernel's, has run.
pub(crate) fn time(process: u32) -> Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let first = text.split(' ').next().context("an empty schedstat")?;
        total += first.parse::<u64>()?;
    }
    Ok(total)
}
