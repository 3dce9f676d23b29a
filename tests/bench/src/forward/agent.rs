//! Weir's agent, as it is shipped.

use std::{
    env,
    fs::{self, File},
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Process};
use serde_json::{Value, json};
use weir_tests::cpu;

/// The release build, which `cargo xtask bench` makes.
fn binary() -> Result<PathBuf> {
    let binary = env::current_exe()?.with_file_name("weir");
    ensure!(
        binary.exists(),
        "there is no {}: `cargo xtask bench forward` builds it",
        binary.display()
    );
    Ok(binary)
}

/// Starts it on all NICs of the balancer, away from the CPU that measures.
pub(crate) fn start(lab: &Lab, mut document: Value) -> Result<Process> {
    let interfaces = lab.lb_devices().iter();
    document["agent"]["interfaces"] = interfaces
        .map(|name| json!({ "name": name, "xdp": "native" }))
        .collect();
    document["agent"]["admin"]["socket"] = json!(lab.directory().join("admin.sock"));
    document["agent"]["pin"] = json!(lab.pins());
    let config = lab.directory().join("weir.json");
    fs::write(&config, document.to_string())?;
    let log = File::create(lab.directory().join("weir.log"))?;
    let mut command = lab.lb().command("taskset");
    command
        .args(["-c", &cpu::first()?.to_string()])
        .arg(binary()?)
        .args(["agent", "--config"])
        .arg(&config)
        .stdin(std::process::Stdio::null())
        .stderr(log);
    Process::spawn(command)
}

/// What it has logged.
pub(crate) fn log(lab: &Lab) -> String {
    let path = lab.directory().join("weir.log");
    let read = fs::read_to_string(&path).with_context(|| path.display().to_string());
    read.unwrap_or_else(|error| format!("{error:#}"))
}
