//! What figures were measured on.

use std::{fs, process::Command};

use anyhow::Result;

/// Date, commit, processor and kernel, as a report's first line goes on after "Written by X".
pub(crate) fn description() -> Result<String> {
    let said = |program: &str, arguments: &[&str]| -> Result<String> {
        let output = Command::new(program).args(arguments).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model
        .unwrap_or("unknown")
        .trim_start_matches(['\t', ':', ' ']);
    let cpus = cpu.lines().filter(|line| line.starts_with("processor"));
    let cpus = cpus.count();
    let kernel = said("uname", &["-r"])?;
    let kernel = kernel.split('-').next().unwrap_or_default();
    // The last that changed what is measured: it stays what it is when others are rebased.
    let measured = ["lb-ebpf", "lb-common", "lb-userspace"];
    let arguments = ["log", "-1", "--format=%h", "HEAD", "--"];
    let commit = said("git", &[&arguments[..], &measured].concat())?;
    let date = said("date", &["-I"])?;
    Ok(format!(
        "on {date}, at commit {commit}: {model}, {cpus} CPUs, Linux {kernel}"
    ))
}
