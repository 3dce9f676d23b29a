//! How the demo is shown: a table that is drawn anew each second, or, where there is no
//! terminal, a line a second.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    time::Instant,
};

use lab::load::Results;

use super::{
    sample::{Sample, Service, since},
    web::{Server, Web},
};

/// Standard output.
pub(super) struct Screen {
    started: Instant,
    is_terminal: bool,
    /// Lines of the table that is there.
    drawn: usize,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            is_terminal: io::stdout().is_terminal(),
            drawn: 0,
        }
    }

    /// Shows what happened between two samples.
    pub(super) fn show(&mut self, before: &Sample, now: &Sample, webs: &[Web]) -> io::Result<()> {
        let seconds = now.at.duration_since(self.started).as_secs();
        if !self.is_terminal {
            return writeln!(io::stdout(), "{seconds:4} s  {}", line(before, now));
        }
        let table = format!(
            "{seconds} s  {}\n\n{}",
            traffic(before, now),
            table(before, now, webs)
        );
        let mut out = io::stdout().lock();
        if self.drawn > 0 {
            // To the first line of the last one, and clear from there.
            write!(out, "\x1b[{}F\x1b[J", self.drawn)?;
        }
        write!(out, "{table}")?;
        self.drawn = table.lines().count();
        out.flush()
    }
}

/// Requests a second, and all so far.
fn traffic(before: &Sample, now: &Sample) -> String {
    let (then, total) = (before.total(), now.total());
    let elapsed = now.at.duration_since(before.at).as_secs_f64();
    let rate = (total.requests - then.requests) as f64 / elapsed;
    let Results {
        requests,
        failed,
        retried,
        ..
    } = total;
    format!("{rate:5.0} requests/s, {failed} failed of {requests} so far, {retried} tried again")
}

/// One line: traffic, and of each backend its share, health and packets in all services.
fn line(before: &Sample, now: &Sample) -> String {
    let mut line = traffic(before, now);
    let last = since(&before.total(), &now.total());
    let names = now.services.iter().flat_map(|s| s.backends.keys());
    for name in names.collect::<BTreeSet<_>>() {
        let views = || {
            now.services
                .iter()
                .filter_map(|s| Some((s, s.backends.get(name)?)))
        };
        let packets: u64 = views().map(|(_, view)| view.counters.packets).sum();
        let ill = views().filter(|(_, view)| view.health.status != "healthy");
        let ill: Vec<_> = ill.map(|(service, _)| service.name).collect();
        let health = match ill.is_empty() {
            true => "healthy".to_owned(),
            false => format!("not healthy in {}", ill.join(" and ")),
        };
        // Writing to a string does not fail.
        let _ = write!(
            line,
            "; {name} {}, {health}, {packets} packets",
            share(&last, name)
        );
    }
    line + "; " + &drops(now)
}

/// A row for each backend of each service, and the drops.
fn table(before: &Sample, now: &Sample, webs: &[Web]) -> String {
    let mut text = format!(
        "{:12} {:8} {:>6} {:>11}  {:10} {:>10}  {}\n",
        "SERVICE", "BACKEND", "SHARE", "REQUESTS/S", "HEALTH", "PACKETS", "NGINX"
    );
    let elapsed = now.at.duration_since(before.at).as_secs_f64();
    for (then, service) in before.services.iter().zip(&now.services) {
        let Service {
            name,
            port,
            results,
            backends,
        } = service;
        let last = since(&then.results, results);
        for (backend, view) in backends {
            let answered = last.by_backend.get(backend).unwrap_or(&0);
            let rate = *answered as f64 / elapsed;
            let web = webs
                .iter()
                .find(|web| web.backend() == backend && web.port() == *port);
            let nginx = match web.map(Web::server) {
                Some(Server::Runs(id)) => format!("process {id}"),
                Some(Server::BackIn(seconds)) => format!("ended, back in {seconds} s"),
                None => String::new(),
            };
            let _ = writeln!(
                text,
                "{name:12} {backend:8} {:>6} {rate:11.0}  {:10} {:10}  {nginx}",
                share(&last, backend),
                view.health.status,
                view.counters.packets
            );
        }
    }
    text + "\n" + &drops(now) + "\n"
}

/// The share of a backend in what was answered.
fn share(results: &Results, backend: &str) -> String {
    let answered: u64 = results.by_backend.values().sum();
    let own = results.by_backend.get(backend).unwrap_or(&0);
    match answered {
        0 => "-".to_owned(),
        _ => format!("{:.0} %", *own as f64 * 100.0 / answered as f64),
    }
}

/// `dropped 3 no_backend, 1 too_big`.
fn drops(now: &Sample) -> String {
    let drops = now
        .drops
        .iter()
        .map(|(reason, packets)| format!("{packets} {reason}"));
    let drops: Vec<_> = drops.collect();
    match drops.is_empty() {
        true => "no packet dropped".to_owned(),
        false => format!("dropped {}", drops.join(", ")),
    }
}

/// The last line of a demo.
pub(super) fn summary(total: &Results) -> String {
    let mut line = format!(
        "summary: {} requests, {} failed, {} tried again",
        total.requests, total.failed, total.retried
    );
    for backend in total.by_backend.keys() {
        let _ = write!(line, "; {backend} {}", share(total, backend));
    }
    line
}
