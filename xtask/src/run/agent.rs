//! The agent's executable and its process.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{command::shown, release, setup};

/// Builds the agent, and says where it is.
pub(super) fn build() -> Result<PathBuf> {
    setup::for_building()?;
    let mut command = release::cargo()?;
    command
        .args(release::AGENT)
        // Cargo alone knows where its target directory is.
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let shown = shown(&command);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run `{shown}`"))?;
    let mut executable = None;
    if let Some(messages) = child.stdout.take() {
        for message in BufReader::new(messages).lines() {
            let message: Value = serde_json::from_str(&message?)?;
            if message["target"]["name"] == "weir" {
                executable = message["executable"].as_str().map(PathBuf::from);
            }
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "`{shown}` failed: {status}");
    executable.with_context(|| format!("`{shown}` made no executable"))
}

/// Adds what makes `weir`, the command so far, the agent.
pub(super) fn configured(mut weir: Command, config: &Path) -> Command {
    weir.args(["agent", "--config"]).arg(config);
    weir.stdin(Stdio::null());
    weir
}
