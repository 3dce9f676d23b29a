//! Connections and requests a second, and what the balancer's CPU does for each.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use weir_tests::cpu;

use super::{
    contender::RELAY,
    tcp::{self, Contender},
};
use crate::{interrupt, wrk};

/// How clients use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A connection for every request.
    Connections,
    /// Sixty-four that are kept.
    Requests,
}

/// One run of the client.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) requests: f64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// Microseconds of the balancer's CPU for one.
    pub(crate) microseconds: f64,
    /// Errors that the client reports.
    pub(crate) failed: u64,
}

/// Rounds of a contender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) rounds: Vec<Round>,
}

/// All contenders by turns. The balancer has the last CPU to itself; the client, the servers and
/// their NICs have the first. To be called before any other process is started: they stay on
/// the CPU of the first.
pub(crate) fn measure(quick: bool, only: &str) -> Result<Vec<Series>> {
    cpu::pin(cpu::first()?)?;
    let mut contenders = tcp::all()?;
    contenders.retain(|one| one.name == RELAY || one.name.contains(only));
    let rounds = if quick { 1 } else { 7 };
    let mut all = Vec::new();
    for contender in &contenders {
        for kind in [Kind::Connections, Kind::Requests] {
            let name = contender.name.to_owned();
            let rounds = Vec::new();
            all.push(Series { name, kind, rounds });
        }
    }
    for _ in 0..rounds {
        let series = all.iter_mut();
        let with = contenders.iter().flat_map(|contender| [contender; 2]);
        for (series, contender) in series.zip(with) {
            interrupt::check()?;
            series.rounds.push(round(contender, series.kind)?);
        }
    }
    Ok(all)
}

fn round(contender: &Contender, kind: Kind) -> Result<Round> {
    let before = contender.time()?;
    let mut arguments = vec!["-c64"];
    if kind == Kind::Connections {
        arguments.extend(wrk::CLOSE);
    }
    let url = format!("http://{}/", contender.target);
    let said = wrk::run(contender.client(), &arguments, &url)?;
    let time = contender.time()? - before;
    Ok(Round {
        requests: said.requests,
        rate: said.rate,
        microseconds: time as f64 / 1e3 / said.requests,
        failed: said.failed,
    })
}
