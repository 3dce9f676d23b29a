//! What a process has in memory.

use std::fs;

use anyhow::{Context as _, Result};

/// Bytes of memory that a process has in use.
///
/// # Errors
///
/// There is no such process.
pub fn resident(process: u32) -> Result<u64> {
    status(process, "VmRSS:")
}

/// The most bytes that it has had in use since [`forget_peak`].
///
/// # Errors
///
/// As [`resident`].
pub fn peak(process: u32) -> Result<u64> {
    status(process, "VmHWM:")
}

/// What it had in use until now is its peak no more (proc(5), `clear_refs`).
///
/// # Errors
///
/// As [`resident`].
pub fn forget_peak(process: u32) -> Result<()> {
    Ok(fs::write(format!("/proc/{process}/clear_refs"), "5")?)
}

fn status(process: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context(field.to_owned())?.parse::<u64>()? * 1024)
}
