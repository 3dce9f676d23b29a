//! How long requests take at a rate that is the same for all.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{
    cases::{Case, Client},
    contender::Contender,
    load,
};
use crate::{interrupt, statistics::quantile};

/// Connections that the requests come on.
const CONNECTIONS: u32 = 64;

/// How long requests of a case took with a contender.
pub(crate) struct Series {
    pub(crate) case: Case,
    pub(crate) name: &'static str,
    /// Requests a second.
    pub(crate) rate: u32,
    /// Microseconds, of all rounds.
    times: Vec<f64>,
}

impl Series {
    /// Microseconds that this part of the requests took at most.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        quantile(&self.times, part)
    }
}

/// Those with one worker, by turns, at half the rate that the slowest of them reached.
pub(crate) fn measure(
    contenders: &[Contender],
    load: &[load::Series],
    (rounds, seconds): (usize, u32),
) -> Result<Vec<Series>> {
    let mut all: Vec<Series> = Vec::new();
    let one = || load.iter().filter(|series| series.workers == 1);
    for series in one().filter(|series| series.case.paced) {
        let same = one().filter(|other| other.case.name == series.case.name);
        let slowest = same.map(load::Series::rate).fold(f64::MAX, f64::min);
        let each = (slowest / 2.0 / f64::from(CONNECTIONS)) as u32;
        all.push(Series {
            case: series.case,
            name: series.name,
            rate: each.max(1) * CONNECTIONS,
            times: Vec::new(),
        });
    }
    for _ in 0..rounds {
        for series in &mut all {
            let mut fitting = contenders.iter().filter(|one| one.workers == 1);
            let contender = fitting.find(|one| one.name == series.name);
            let contender = contender.context("no such contender")?;
            series.times.extend(round(contender, series, seconds)?);
        }
    }
    Ok(all)
}

fn round(contender: &Contender, series: &Series, seconds: u32) -> Result<Vec<f64>> {
    let log = contender.lab.directory().join("requests");
    // It is added to.
    let _ = fs::remove_file(&log);
    let mut command = contender.lab.client().command("h2load");
    if series.case.client != Client::Two {
        command.arg("--h1");
    }
    command.args([
        format!("-c{CONNECTIONS}"),
        format!("-D{seconds}"),
        format!("--rps={}", series.rate / CONNECTIONS),
        format!("--log-file={}", log.display()),
        contender.url(&series.case),
    ]);
    let output = command.output()?;
    interrupt::check()?;
    ensure!(
        output.status.success(),
        "h2load: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = fs::read_to_string(&log)?;
    let times = text.lines().map(|line| {
        let mut columns = line.split('\t').skip(1);
        let (status, time) = (columns.next()?, columns.next()?);
        (status == "200").then(|| time.parse().ok())?
    });
    let times = times.collect::<Option<Vec<f64>>>();
    times.with_context(|| format!("{}: a request failed", series.name))
}
