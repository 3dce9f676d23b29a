//! TCP connections that a namespace has opened.

use std::fs;

use anyhow::{Context as _, Result};

/// How many a process's namespace has opened so far.
///
/// # Errors
///
/// There is no such process.
pub fn opened(process: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/net/snmp"))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().zip(lines.next())).context("no counters of TCP")?;
    let mut both = names.split(' ').zip(values.split(' '));
    let opened = both.find(|(name, _)| *name == "ActiveOpens");
    Ok(opened.context("no ActiveOpens")?.1.parse()?)
}
