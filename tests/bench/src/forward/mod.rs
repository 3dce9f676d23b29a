//! Forwarding, end to end, beside what others use.

mod connections;
mod contender;
mod network;
mod nftables;
mod packets;
mod proxies;
mod report;
mod tcp;
mod verify;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::machine;

/// Options of `forward`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Few and short rounds: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// Measure this part alone; the report has the other's figures of an earlier run.
    #[arg(long)]
    part: Option<Part>,
    /// Measure those alone whose name contains this, besides the drop and the floor, and keep
    /// nothing: for looking at one with a profiler.
    #[arg(long)]
    only: Option<String>,
    /// Where to write the report, in Markdown, and its plots beside it.
    #[arg(long)]
    output: Option<PathBuf>,
}

/// What can be measured apart, for want of a quiet machine for long.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Generated frames.
    Packets,
    /// Connections between real clients and servers.
    Connections,
}

/// Everything that was measured.
#[derive(Default, Serialize, Deserialize)]
struct Results {
    packets: Vec<packets::Series>,
    /// When and on what.
    packets_on: String,
    connections: Vec<connections::Series>,
    connections_on: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    // Beside the program, in the target directory.
    let kept = env::current_exe()?.with_file_name("weir-bench-forward.json");
    let keep = !arguments.quick && arguments.only.is_none();
    let mut results = if keep {
        read(&kept)?
    } else {
        Results::default()
    };
    let only = arguments.only.as_deref().unwrap_or_default();
    let wanted = |part| arguments.part.is_none_or(|only| only == part);
    if wanted(Part::Connections) {
        results.connections = connections::measure(arguments.quick, only)?;
        results.connections_on = machine::description()?;
    }
    if wanted(Part::Packets) {
        results.packets = packets::measure(arguments.quick, only)?;
        results.packets_on = machine::description()?;
    }
    print!("{}", report::tables(&results));
    if keep {
        fs::write(&kept, serde_json::to_string(&results)?)
            .with_context(|| format!("cannot write {}", kept.display()))?;
    }
    match &arguments.output {
        Some(page) => report::write(&results, page),
        None => Ok(()),
    }
}

/// What earlier runs have left.
fn read(kept: &Path) -> Result<Results> {
    if !kept.exists() {
        return Ok(Results::default());
    }
    serde_json::from_str(&fs::read_to_string(kept)?)
        .with_context(|| format!("{} is of another version: remove it", kept.display()))
}
