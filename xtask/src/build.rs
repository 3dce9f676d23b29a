//! `cargo xtask build`.

use anyhow::Result;

use crate::{
    command::{cargo, run},
    setup,
};

/// Options of `cargo xtask build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// With optimisation, and without the XDP program's own log.
    #[arg(long)]
    pub(crate) release: bool,
}

/// Builds the agent, with the XDP program in it, and what the tests use.
pub(crate) fn verb(args: &Args) -> Result<()> {
    setup::for_building()?;
    let mut build = cargo();
    build.arg("build");
    if args.release {
        build.arg("--release");
    }
    run(&mut build)
}
