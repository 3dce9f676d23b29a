//! `cargo xtask build`.

use anyhow::Result;

use crate::{
    command::{cargo, run},
    release, setup,
};

/// Options of `cargo xtask build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The agent alone, as it is shipped: with optimisation, and without the XDP program's own log.
    #[arg(long)]
    pub(crate) release: bool,
}

/// Builds the agent, with the XDP program in it, and what the tests use.
pub(crate) fn verb(args: &Args) -> Result<()> {
    setup::for_building()?;
    match args.release {
        true => run(release::cargo()?.args(release::AGENT)),
        false => run(cargo().arg("build")),
    }
}
