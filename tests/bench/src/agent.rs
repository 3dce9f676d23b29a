//! Weir's agent, as it is shipped.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Process};
use serde_json::{Value, json};

use crate::pinned;

/// The release build, which `cargo xtask bench` makes.
pub(crate) fn shipped() -> Result<PathBuf> {
    let binary = env::current_exe()?.with_file_name("weir");
    ensure!(
        binary.exists(),
        "there is no {}: `cargo xtask bench` builds it",
        binary.display()
    );
    Ok(binary)
}

/// Starts it on all NICs of the balancer, and on these CPUs.
pub(crate) fn start(lab: &Lab, cpus: &[usize], document: Value) -> Result<Process> {
    start_other(&shipped()?, lab, cpus, document)
}

/// The same, with another executable.
pub(crate) fn start_other(
    binary: &Path,
    lab: &Lab,
    cpus: &[usize],
    mut document: Value,
) -> Result<Process> {
    let interfaces = lab.lb_devices().iter();
    document["agent"]["interfaces"] = interfaces
        .map(|name| json!({ "name": name, "xdp": "native" }))
        .collect();
    document["agent"]["admin"]["socket"] = json!(lab.directory().join("admin.sock"));
    document["agent"]["pin"] = json!(lab.pins());
    let config = lab.directory().join("weir.json");
    fs::write(&config, document.to_string())?;
    pinned::start(lab, "weir", cpus, |command| {
        command.arg(binary).args(["agent", "--config"]).arg(&config);
    })
}

/// What it has logged.
pub(crate) fn log(lab: &Lab) -> String {
    let path = lab.directory().join("weir.log");
    let read = fs::read_to_string(&path).with_context(|| path.display().to_string());
    read.unwrap_or_else(|error| format!("{error:#}"))
}
