//! `cargo xtask bench`.

use anyhow::{Result, ensure};

use crate::{
    command::{cargo, run},
    setup,
};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Few and short rounds, and nothing is written: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
}

/// What a packet costs, printed and written to docs/benchmarks.md.
pub(crate) fn verb(args: &Args) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmark loads BPF programs and makes network namespaces, which needs root: \
         `sudo -E env \"PATH=$PATH\" cargo xtask bench`"
    );
    setup::for_lab()?;
    setup::for_building()?;
    let mut bench = cargo();
    bench.args(["run", "--release", "--package", "weir-bench", "--"]);
    run(match args.quick {
        true => bench.arg("--quick"),
        false => bench.args(["--output", "docs/benchmarks.md"]),
    })
}
