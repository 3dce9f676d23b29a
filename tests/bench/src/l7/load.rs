//! As many requests as can be, and the proxy's CPU time for each.

use anyhow::{Context as _, Result, ensure};

use super::{
    cases::{CASES, Case, Client},
    contender::Contender,
};
use crate::{
    interrupt,
    statistics::{median, median_of_pairs},
    wrk,
};

/// Rounds of a case with a contender.
pub(crate) struct Series {
    pub(crate) case: Case,
    pub(crate) name: &'static str,
    pub(crate) workers: usize,
    rounds: Vec<Round>,
}

/// A second of load.
struct Round {
    /// Requests a second.
    rate: f64,
    /// CPU seconds of the proxy for 100,000 requests.
    seconds: f64,
    failed: u64,
}

impl Series {
    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.rate))
    }

    /// CPU seconds of the proxy for 100,000 requests.
    pub(crate) fn seconds(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.seconds))
    }

    /// How many times as much CPU it took as another, round by round.
    pub(crate) fn times(&self, other: &Series) -> f64 {
        median_of_pairs(&self.rounds, &other.rounds, |own, other| {
            own.seconds / other.seconds
        })
    }

    /// Requests that failed, in all rounds.
    pub(crate) fn failed(&self) -> u64 {
        self.rounds.iter().map(|round| round.failed).sum()
    }
}

/// So many rounds more of every case with every contender, by turns.
pub(crate) fn measure(
    contenders: &[Contender],
    rounds: usize,
    only: &str,
    all: &mut Vec<Series>,
) -> Result<()> {
    if all.is_empty() {
        let cases = CASES.iter().filter(|case| case.name.contains(only));
        let both = cases.flat_map(|case| contenders.iter().map(move |one| (case, one)));
        all.extend(both.map(|(case, contender)| Series {
            case: *case,
            name: contender.name,
            workers: contender.workers,
            rounds: Vec::new(),
        }));
    }
    for _ in 0..rounds {
        for (series, contender) in all.iter_mut().zip(contenders.iter().cycle()) {
            interrupt::check()?;
            let round = round(contender, &series.case);
            let what = || format!("{}, {}", series.name, series.case.name);
            series.rounds.push(round.with_context(what)?);
        }
    }
    Ok(())
}

fn round(contender: &Contender, case: &Case) -> Result<Round> {
    let (client, url) = (contender.lab.client(), contender.url(case));
    let before = contender.time()?;
    let said = match case.client {
        Client::Kept(connections) => wrk::run(client, &[&format!("-c{connections}")], &url),
        Client::Each => wrk::run(client, &[&["-c64"], &wrk::CLOSE[..]].concat(), &url),
        Client::Two => {
            let mut command = client.command("h2load");
            command.args(["-D1", "-c64", "-m8", &url]);
            let output = command.output()?;
            interrupt::check()?;
            let said = String::from_utf8_lossy(&output.stdout);
            read(&said).with_context(|| format!("h2load said: {said}"))
        }
    }?;
    let time = contender.time()? - before;
    ensure!(said.requests > 0.0, "no request was answered");
    Ok(Round {
        rate: said.rate,
        seconds: time as f64 / 1e9 / said.requests * 1e5,
        failed: said.failed,
    })
}

/// What h2load did.
fn read(said: &str) -> Option<wrk::Said> {
    let finished = said.lines().find(|line| line.starts_with("finished in "))?;
    let rate = finished.split(", ").nth(1)?.strip_suffix(" req/s")?;
    let requests = said.lines().find(|line| line.starts_with("requests: "))?;
    let count = |what: &str| {
        let mut parts = requests.trim_start_matches("requests: ").split(", ");
        parts.find_map(|part| part.strip_suffix(what)?.trim().parse::<u64>().ok())
    };
    Some(wrk::Said {
        requests: count("succeeded")? as f64,
        rate: rate.parse().ok()?,
        failed: count("failed")? + count("timeout")?,
    })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn reads_what_h2load_says() {
        let said = "finished in 1.00s, 12345.50 req/s, 1.20MB/s\n\
                    requests: 12400 total, 12400 started, 12346 done, 12346 succeeded, 3 failed, \
                    3 errored, 1 timeout\n";
        let read_all = read(said).map(|said| (said.requests, said.rate, said.failed));
        assert_eq!(read_all, Some((12346.0, 12345.5, 4)));
        assert!(read("connection refused").is_none());
    }
}
