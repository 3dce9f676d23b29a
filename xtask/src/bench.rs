//! `cargo xtask bench`.

use anyhow::{Result, ensure};

use crate::{command::run, release, setup};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    benchmark: Option<Benchmark>,
    /// Few and short rounds, and nothing is written: whether it works, not what it costs.
    #[arg(long, global = true)]
    quick: bool,
}

/// What is measured; `packets` if nothing is said.
#[derive(clap::Subcommand)]
enum Benchmark {
    /// What a packet costs in the program. Writes docs/benchmarks.md.
    Packets,
    /// What forwarding costs, end to end, beside nftables, HAProxy and nginx. Writes
    /// docs/benchmarks-forward.md.
    Forward {
        /// Measure this part alone: `packets` or `connections`. The page has the other's figures
        /// of the last run that measured it.
        #[arg(long)]
        part: Option<String>,
    },
    /// What a request costs in the HTTP proxy, beside nginx and HAProxy. Writes
    /// docs/benchmarks-l7.md.
    L7,
    /// What a change costs, and what there may be of everything. Writes
    /// docs/benchmarks-changes.md.
    Changes,
}

impl Benchmark {
    /// Its name in `weir-bench`, and what it writes.
    fn parts(&self) -> (&'static str, &'static str) {
        match self {
            Self::Packets => ("packets", "docs/benchmarks.md"),
            Self::Forward { .. } => ("forward", "docs/benchmarks-forward.md"),
            Self::L7 => ("l7", "docs/benchmarks-l7.md"),
            Self::Changes => ("changes", "docs/benchmarks-changes.md"),
        }
    }
}

/// Figures, printed and written to a page of docs/.
pub(crate) fn verb(args: &Args) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmarks load BPF programs and make network namespaces, which needs root: \
         `sudo -E env \"PATH=$PATH\" cargo xtask bench`"
    );
    setup::for_lab()?;
    setup::for_building()?;
    let benchmark = args.benchmark.as_ref().unwrap_or(&Benchmark::Packets);
    let (name, page) = benchmark.parts();
    let mut bench = release::cargo()?;
    bench.args(["run", "--release", "--package", "weir-bench", "--", name]);
    if let Benchmark::Forward { .. } | Benchmark::L7 = benchmark {
        setup::for_comparing()?;
    }
    if !matches!(benchmark, Benchmark::Packets) {
        // The agent that is measured.
        run(release::cargo()?.args(release::AGENT))?;
    }
    if let Benchmark::Forward { part } = benchmark {
        bench.args(part.iter().flat_map(|part| ["--part", part]));
    }
    run(match args.quick {
        true => bench.arg("--quick"),
        false => bench.args(["--output", page]),
    })
}
