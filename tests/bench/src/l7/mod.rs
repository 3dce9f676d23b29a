//! What a request costs in the HTTP proxy, beside others.

mod cases;
mod contender;
mod idle;
mod latency;
mod load;
mod proxies;
mod report;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use weir_tests::cpu;

/// Options of `l7`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// One short round: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// Measure the load of those cases alone whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Put this agent alone under the load of every case, to see what it does: nothing is written.
    #[arg(long, conflicts_with = "output")]
    agent: Option<PathBuf>,
    /// Where to write the report, in Markdown, and its plot beside it.
    #[arg(long)]
    output: Option<PathBuf>,
}

/// Of a run that counts: how often all are set up, as each time some do better than others for as
/// long as they run, and rounds of load each time.
const SETUPS: usize = 5;
/// See above.
const ROUNDS: usize = 3;

/// How much of everything.
#[derive(Clone, Copy)]
struct Scale {
    /// How often all are set up, and rounds of load each time.
    setups: usize,
    rounds: usize,
    /// Rounds at a fixed rate, and seconds of each.
    paced: (usize, u32),
    /// Connections that do nothing, and for how long.
    idle: usize,
    rest: Duration,
}

/// Everything that was measured.
struct Results {
    load: Vec<load::Series>,
    latency: Vec<latency::Series>,
    idle: Vec<idle::Series>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    // Connections that do nothing are many; who started this may have allowed few by default.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let scale = match arguments.quick {
        true => Scale {
            setups: 1,
            rounds: 1,
            paced: (1, 1),
            idle: 2000,
            rest: Duration::from_secs(2),
        },
        false => Scale {
            setups: SETUPS,
            rounds: ROUNDS,
            paced: (1, 2),
            // HAProxy keeps two descriptors for each, and stops accepting where it has no more.
            idle: 10_000.min((most / 2).saturating_sub(500) as usize),
            rest: Duration::from_secs(4),
        },
    };
    // The client, and the servers that it starts.
    cpu::pin(cpu::first()?)?;
    let only = arguments.only.as_deref();
    let (mut contenders, mut load) = (Vec::new(), Vec::new());
    for _ in 0..scale.setups {
        // Those of before have ended when others begin.
        contenders.clear();
        contenders = contender::all(arguments.agent.as_deref())?;
        let cases = only.unwrap_or_default();
        load::measure(&contenders, scale.rounds, cases, &mut load)?;
    }
    if arguments.agent.is_some() {
        return Ok(());
    }
    let (latency, idle) = match only {
        Some(_) => Default::default(),
        None => (
            latency::measure(&contenders, &load, scale.paced)?,
            idle::measure(&contenders, scale.idle, scale.rest)?,
        ),
    };
    let results = Results {
        load,
        latency,
        idle,
    };
    print!("{}", report::tables(&results));
    match &arguments.output {
        Some(page) if only.is_none() => report::write(&results, page),
        _ => Ok(()),
    }
}
