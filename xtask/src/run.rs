//! `cargo xtask run`: builds the agent and runs it, in a demo or on NICs of this machine.

mod admin;
mod agent;
mod demo;
mod front;
mod guide;
mod nic;
mod sample;
mod screen;
mod signals;
mod web;
mod weir;

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use nix::unistd::geteuid;
use tokio::runtime;

use crate::setup;

/// Options of `cargo xtask run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Balance on this interface of the machine, not in a demo; may be given several times.
    #[arg(long, value_name = "NAME")]
    iface: Vec<String>,
    /// Run the agent with this configuration; --iface replaces its interfaces.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// End the demo after so many seconds.
    #[arg(
        long = "for",
        value_name = "SECONDS",
        conflicts_with = "config",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    seconds: Option<u64>,
    /// Run this agent instead of building one.
    #[arg(long, value_name = "PATH", hide = true)]
    agent: Option<PathBuf>,
}

pub(crate) fn verb(args: &Args) -> Result<()> {
    ensure!(
        geteuid().is_root(),
        "running loads a BPF program, and the demo makes network namespaces, which needs root: \
         `sudo -E env \"PATH=$PATH\" cargo xtask run`"
    );
    ensure!(
        args.iface.is_empty() || args.config.is_some(),
        "--iface needs `--config FILE` with the services to balance and their backends: \
         examples/ has some to start from; without both, there is a demo"
    );
    if args.config.is_none() {
        setup::for_lab()?;
    }
    let agent = match &args.agent {
        Some(agent) => agent.clone(),
        None => agent::build()?,
    };
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match &args.config {
            Some(config) => nic::run(&agent, config, &args.iface).await,
            None => demo::run(&agent, args.seconds.map(Duration::from_secs)).await,
        }
    })
}
