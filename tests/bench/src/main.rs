//! Weir's benchmarks. `cargo xtask bench` runs them.

mod agent;
mod changes;
mod forward;
mod interrupt;
mod l7;
mod machine;
mod napi;
mod packets;
mod pinned;
mod plot;
mod statistics;
mod wrk;

use anyhow::Result;
use clap::Parser;
use mimalloc::MiMalloc;
use weir_tests::cpu;

/// The agent's: what changes cost is measured in this process.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Weir's benchmarks.
#[derive(Parser)]
enum Benchmark {
    /// What a packet costs in the program.
    Packets(packets::Arguments),
    /// What forwarding costs, end to end, beside what others use.
    Forward(forward::Arguments),
    /// What a request costs in the HTTP proxy, beside others.
    L7(l7::Arguments),
    /// What a change costs, and what there may be of everything.
    Changes(changes::Arguments),
}

fn main() -> Result<()> {
    interrupt::note()?;
    match Benchmark::parse() {
        Benchmark::Packets(arguments) => packets::run(&arguments),
        Benchmark::Forward(arguments) => forward::run(&arguments),
        Benchmark::L7(arguments) => l7::run(&arguments),
        Benchmark::Changes(arguments) => changes::run(&arguments),
    }
}
