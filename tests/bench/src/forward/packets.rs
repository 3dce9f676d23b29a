//! Packets a second, and what each costs.

use anyhow::Result;
use frames::Generator;
use serde::{Deserialize, Serialize};
use weir_tests::cpu;

use super::contender::{self, Contender, DROP, RELAY};
use crate::interrupt;

/// Which flows frames are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// The same 1,024 over and over.
    Steady,
    /// Each of another.
    New,
}

/// One call of the generator.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    /// Nanoseconds of the core for a frame, everything included.
    pub(crate) nanoseconds: f64,
    pub(crate) sent: u64,
    pub(crate) arrived: u64,
}

/// Rounds of a contender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) rounds: Vec<Round>,
}

/// All contenders by turns. Everything but the agent runs on one core: the generator, and in
/// the softirqs that it raises, the balancer's NIC and the backends'.
pub(crate) fn measure(quick: bool, only: &str) -> Result<Vec<Series>> {
    cpu::pin(cpu::last()?)?;
    let mut contenders = contender::all()?;
    contenders.retain(|one| [DROP, RELAY].contains(&one.name) || one.name.contains(only));
    // Short rounds, and many: on a shared machine what a frame costs changes within seconds, by more
    // than what contenders differ by, and for those that come one after the other alike.
    let (rounds, part) = if quick { (2, 10) } else { (41, 1) };
    let mut all = Vec::new();
    for contender in &contenders {
        for kind in [Kind::Steady, Kind::New] {
            let name = contender.name.to_owned();
            let rounds = Vec::new();
            all.push(Series { name, kind, rounds });
        }
    }
    for _ in 0..rounds {
        for (contender, series) in contenders.iter_mut().zip(all.chunks_mut(2)) {
            for series in series {
                interrupt::check()?;
                series.rounds.push(round(contender, series.kind, part)?);
            }
        }
    }
    Ok(all)
}

fn round(contender: &mut Contender, kind: Kind, part: u32) -> Result<Round> {
    contender.forget()?;
    let sink = contender.sink.clone();
    let (generator, frames): (&mut Generator, _) = match kind {
        Kind::Steady => {
            // Flows that have been forgotten since the last round are opened again.
            contender.steady.send(4096)?;
            (&mut contender.steady, contender.steady_frames)
        }
        Kind::New => (&mut contender.new, contender.new_frames),
    };
    // What a call takes whatever its length.
    let call = generator.send(64)?;
    let (sent, arrived) = (generator.sent()?, sink.swallowed()?);
    let took = generator.send(frames / part)?;
    let sent = generator.sent()? - sent;
    // The last frames may still be on their way.
    std::thread::sleep(std::time::Duration::from_millis(5));
    Ok(Round {
        nanoseconds: took.saturating_sub(call).as_nanos() as f64 / sent as f64,
        sent,
        // A neighbour's question, say, comes in beside the frames.
        arrived: (sink.swallowed()? - arrived).min(sent),
    })
}
