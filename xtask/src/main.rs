//! The developers' verbs: `cargo xtask setup`, `build`, `test` and so on, one file a verb.

mod bench;
mod build;
mod command;
mod lab;
mod lint;
mod profile;
mod release;
mod run;
mod setup;
mod test;
mod toolchain;

use anyhow::Result;
use clap::Parser;

/// Weir's developers' verbs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Verb {
    /// Find or install what building and running Weir needs; the other verbs do this too.
    Setup,
    /// Measure what Weir costs. Needs root.
    Bench(bench::Args),
    /// Build everything.
    Build(build::Args),
    /// Check the formatting and run clippy over everything.
    Lint,
    /// A lab to try things in by hand: a client, the balancer's place and backends. Needs root.
    #[command(subcommand)]
    Lab(lab::Verb),
    /// Find out what Weir executes under load, for release builds to be optimised by. Needs root.
    Profile,
    /// Run Weir: a demo with a network, servers and load of its own, or on a NIC of this machine.
    /// Needs root.
    Run(run::Args),
    /// Run every test, or those whose name contains FILTER. Needs root.
    Test(test::Args),
}

fn main() -> Result<()> {
    match Verb::parse() {
        Verb::Setup => setup::verb(),
        Verb::Bench(args) => bench::verb(&args),
        Verb::Build(args) => build::verb(&args),
        Verb::Lint => lint::verb(),
        Verb::Lab(verb) => lab::verb(&verb),
        Verb::Profile => profile::verb(),
        Verb::Run(args) => run::verb(&args),
        Verb::Test(args) => test::verb(&args),
    }
}
