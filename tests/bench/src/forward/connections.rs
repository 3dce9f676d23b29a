//! Connections and requests a second, and what the balancer's CPU does for each.

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use weir_tests::cpu;

use super::{
    contender::RELAY,
    tcp::{self, Contender},
};
use crate::interrupt;

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
    let mut command = contender.client().command("wrk");
    command.args(["-t1", "-c64", "-d1s"]);
    if kind == Kind::Connections {
        command.args(["-H", "Connection: close"]);
    }
    let output = command
        .arg(format!("http://{}/", contender.target))
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    interrupt::check()?;
    ensure!(output.status.success(), "wrk: {said}");
    let time = contender.time()? - before;
    let (requests, failed) = requests(&said).with_context(|| format!("wrk said: {said}"))?;
    ensure!(
        requests > 0.0,
        "{}: no request was answered",
        contender.name
    );
    Ok(Round {
        requests,
        rate: rate(&said).with_context(|| format!("wrk said: {said}"))?,
        microseconds: time as f64 / 1e3 / requests,
        failed,
    })
}

/// Requests that were answered, and errors.
fn requests(said: &str) -> Option<(f64, u64)> {
    let line = said.lines().find(|line| line.contains(" requests in "))?;
    let requests = line.trim().split(' ').next()?.parse().ok()?;
    let errors = said.lines().find(|line| line.contains("Socket errors"));
    let errors = errors.unwrap_or_default().split([' ', ',']);
    let errors: u64 = errors.filter_map(|word| word.parse::<u64>().ok()).sum();
    let refused = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses: "));
    let refused = refused.and_then(|count| count.parse().ok()).unwrap_or(0);
    Some((requests, errors + refused))
}

fn rate(said: &str) -> Option<f64> {
    let line = said
        .lines()
        .find(|line| line.starts_with("Requests/sec:"))?;
    line.split(' ').next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{rate, requests};

    #[test]
    fn reads_what_wrk_says() {
        let said = "  1 threads and 64 connections\n  12345 requests in 1.10s, 2.00MB read\n  \
                    Socket errors: connect 1, read 20, write 0, timeout 3\n\
                    Requests/sec:  11222.72\nTransfer/sec: 1.81MB\n";
        assert_eq!(requests(said), Some((12345.0, 24)));
        assert_eq!(rate(said), Some(11222.72));
        assert_eq!(requests("unable to connect"), None);
    }
}
