//! Weir's benchmarks. `cargo xtask bench` runs them.

mod packets;

use anyhow::Result;
use clap::Parser;
use weir_tests::cpu;

/// Weir's benchmarks.
#[derive(Parser)]
enum Benchmark {
    /// What a packet costs in the program.
    Packets(packets::Arguments),
}

fn main() -> Result<()> {
    match Benchmark::parse() {
        Benchmark::Packets(arguments) => packets::run(&arguments),
    }
}
