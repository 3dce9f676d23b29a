//! The figures, as tables and as a document.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Result;

use super::{
    ROUNDS, Results, SETUPS,
    cases::{Aim, CASES, Case},
    contender::{HAPROXY, NAMES, NGINX, WEIR},
    load,
};
use crate::{machine, plot::Bars};

/// Bytes that a connection may cost that does nothing.
const IDLE: u64 = 8000;

/// How many workers there are, in words.
const WORKERS: [(usize, &str); 2] = [(1, "one worker"), (2, "two workers")];

/// Where the part of the page begins that people write, which is kept.
const KEPT: &str = "## What the time goes to";

impl Results {
    fn load(&self, case: &Case, name: &str, workers: usize) -> Option<&load::Series> {
        let mut all = self.load.iter();
        all.find(|one| one.case.name == case.name && one.name == name && one.workers == workers)
    }

    fn cases(&self, workers: usize) -> impl Iterator<Item = (&Case, [&load::Series; 3])> {
        CASES.iter().filter_map(move |case| {
            let all = NAMES.map(|name| self.load(case, name, workers));
            let [Some(weir), Some(nginx), Some(haproxy)] = all else {
                return None;
            };
            Some((case, [weir, nginx, haproxy]))
        })
    }
}

/// All tables.
pub(crate) fn tables(results: &Results) -> String {
    let load = WORKERS
        .map(|(workers, name)| format!("### Load, {name}\n\n{}\n", load_table(results, workers)));
    let (latency, idle) = (latency_table(results), idle_table(results));
    let verdicts = aims(results);
    format!(
        "{}### At a fixed rate\n\n{latency}\n### Idle connections\n\n{idle}\n### Aims\n\n{verdicts}",
        load.concat()
    )
}

fn load_table(results: &Results, workers: usize) -> String {
    let mut text = String::from(
        "| | CPU s per 100,000 requests: Weir | nginx | HAProxy | Weir/nginx | Weir/HAProxy \
         | requests a second: Weir | nginx | HAProxy | errors |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (case, all) in results.cases(workers) {
        let [weir, nginx, haproxy] = all;
        let _ = write!(text, "| {} |", case.name);
        for series in all {
            let _ = write!(text, " {:.2} |", series.seconds());
        }
        let [of_nginx, of_haproxy] = [nginx, haproxy].map(|other| weir.times(other));
        let _ = write!(text, " {of_nginx:.2} | {of_haproxy:.2} |");
        for series in all {
            let _ = write!(text, " {:.0} |", series.rate());
        }
        let failed = all.map(load::Series::failed);
        let said = match failed.iter().sum() {
            0 => "0".to_owned(),
            _ => failed.map(|count: u64| count.to_string()).join(", "),
        };
        let _ = writeln!(text, " {said} |");
    }
    text
}

fn latency_table(results: &Results) -> String {
    let mut text = String::from(
        "| | requests a second | Weir: p50 | p99 | p99.9 | nginx: p50 | p99 | p99.9 \
         | HAProxy: p50 | p99 | p99.9 |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for case in CASES.iter().filter(|case| case.paced) {
        let of = |name: &str| {
            let mut all = results.latency.iter();
            all.find(|one| one.case.name == case.name && one.name == name)
        };
        let Some(first) = of(WEIR) else {
            continue;
        };
        let _ = write!(text, "| {} | {} |", case.name, first.rate);
        for series in NAMES.iter().filter_map(|name| of(name)) {
            for part in [0.5, 0.99, 0.999] {
                let _ = write!(text, " {:.2} ms |", series.quantile(part) / 1e3);
            }
        }
        text.push('\n');
    }
    text
}

fn idle_table(results: &Results) -> String {
    let mut text =
        String::from("| | bytes a connection | MB before | MB with them |\n|---|---|---|---|\n");
    for series in &results.idle {
        let kind = if series.tls { "TLS" } else { "without TLS" };
        let [before, after] = [series.before, series.after].map(|bytes| bytes as f64 / 1e6);
        let _ = writeln!(
            text,
            "| {}, {} {kind} | {} | {before:.1} | {after:.1} |",
            series.name,
            series.connections,
            series.each()
        );
    }
    text
}

/// What was aimed at, and whether it was reached.
fn aims(results: &Results) -> String {
    let mut text = String::from("| | aim | measured | |\n|---|---|---|---|\n");
    let mut line = |what: &str, aim: String, measured: String, met: bool| {
        let verdict = if met { "met" } else { "missed" };
        let _ = writeln!(text, "| {what} | {aim} | {measured} | {verdict} |");
    };
    for (workers, name) in WORKERS {
        for (case, all) in results.cases(workers) {
            let what = format!("{}, {name}", case.name);
            for (aim, part, limit) in compared(case.aim, all) {
                // To two digits, as the table has it.
                line(&what, aim, format!("{part:.2}"), part < limit + 0.005);
            }
        }
    }
    for series in results.idle.iter().filter(|series| series.name == WEIR) {
        let what = match series.tls {
            false => "an idle connection",
            true => "an idle connection, TLS",
        };
        let (aim, each) = (format!("at most {IDLE} bytes"), series.each());
        line(what, aim, format!("{each} bytes"), each <= IDLE);
    }
    text
}

/// What a case aims at, what part of the others' CPU time Weir takes, and the most that it may.
fn compared(aim: Aim, [weir, nginx, haproxy]: [&load::Series; 3]) -> Vec<(String, f64, f64)> {
    match aim {
        Aim::Both(of_nginx, of_haproxy) => {
            let others = [(NGINX, nginx, of_nginx), (HAPROXY, haproxy, of_haproxy)];
            let compared = others.map(|(name, other, limit)| {
                let aim = format!("CPU at most {limit} of {name}'s");
                (aim, weir.times(other), limit)
            });
            compared.into()
        }
        Aim::Better(limit) => {
            let (which, better) = match nginx.seconds() < haproxy.seconds() {
                true => (NGINX, nginx),
                false => (HAPROXY, haproxy),
            };
            let aim = format!("CPU at most {limit} of the better's ({which})");
            vec![(aim, weir.times(better), limit)]
        }
    }
}

/// Writes the page, and its plot beside it. What people wrote on it stays.
pub(crate) fn write(results: &Results, page: &Path) -> Result<()> {
    let name = page.file_stem().unwrap_or_default().to_string_lossy();
    let picture = format!("{name}.svg");
    fs::write(page.with_file_name(&picture), plot(results)?)?;
    let old = fs::read_to_string(page).unwrap_or_default();
    let kept = old.find(KEPT).map(|start| format!("\n{}", &old[start..]));
    let text = format!(
        "# What a request costs in the HTTP proxy\n\n\
         Written by `cargo xtask bench l7` {}.\n\n\
         Weir, nginx and HAProxy (Debian's) as reverse proxies of the same kind of two nginx, which \
         answer a few bytes, or files of 10 KiB and 1 MiB: connections to them are kept, each in turn \
         is asked, the client is told of in the same four headers (`X-Forwarded-For`, `-Proto`, \
         `-Host`, `-Port`), nothing is logged. nginx and HAProxy are as Debian builds them, Weir as \
         `cargo xtask build --release` does, by a profile of what it executes under this very load \
         (see below). All by turns in one run, a second a round: medians, of \
         what each took and of the ratios of the rounds, {ROUNDS} of each of {SETUPS} set-ups. \
         wrk makes HTTP/1.1 load, h2load HTTP/2, on eight streams a connection. TLS is 1.3 with a \
         P-256 certificate and AES-GCM, without resumption, and begins with a handshake for each \
         connection, which is counted.\n\n\
         CPU is that of all of the proxy's processes and threads (/proc/PID/task/*/schedstat; of Weir \
         the whole agent, with health checks and all), in the program and in its system calls. Frames \
         that arrive are taken by threads of the kernel's own (threaded NAPI), whose time is not in \
         it, nor is that of Weir's XDP program, which they run. With one worker the proxy has the last \
         CPU to itself and those threads, and the client and the servers have the first; with two, \
         each worker of any of them has a CPU of its own, and shares it: the first with the client and \
         the servers, the last with those threads. So requests a second say little, where the client and the servers are the \
         limit. The links have no offloads: large bodies go in frames of 1,500 bytes. Every NIC has a \
         native XDP program, Weir's its own, all others one that only passes: without one veth hands \
         on what the sender has in memory, and with one new memory, as a real NIC does (see below).\n\n\
         Memory is the proportional set size of all of the proxy's processes, each idle connection \
         after one request; a tenth as many with TLS, to those of two workers. The fixed rate is half of what the slowest \
         reached, on 64 connections, each of which waits for its answer before it asks again.\n\n\
         ![CPU time of a request]({picture})\n\n{}",
        machine::description()?,
        tables(results),
    );
    Ok(fs::write(page, text + &kept.unwrap_or_default())?)
}

fn plot(results: &Results) -> Result<String> {
    let groups: Vec<_> = results
        .cases(1)
        .map(|(case, all)| {
            let seconds = all.map(load::Series::seconds);
            (case.name.to_owned(), seconds.to_vec())
        })
        .collect();
    Bars {
        title: "CPU time of the proxy, one worker",
        unit: "seconds for 100,000 requests (logarithmic)",
        series: &NAMES,
        groups: &groups,
    }
    .svg()
}
