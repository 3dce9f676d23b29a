//! The figures, as tables and as a document.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::Result;

use super::{Scale, checks::Checks, memory::Memory};

pub(crate) const WEIGHT: &str = "another weight";
pub(crate) const LESS: &str = "a backend less";
pub(crate) const MORE: &str = "a backend more";
pub(crate) const ALL_FIRST: &str = "a backend of all services fails: first";
pub(crate) const ALL_LAST: &str = "a backend of all services fails: last";
pub(crate) const EACH_FIRST: &str = "a backend of each pool fails: first";
pub(crate) const EACH_LAST: &str = "a backend of each pool fails: last";

/// What was measured.
#[derive(Default)]
pub(crate) struct Report {
    names: Vec<&'static str>,
    times: BTreeMap<&'static str, Vec<Duration>>,
    rates: Vec<f64>,
    memory: Vec<(&'static str, Memory)>,
    checks: Vec<Checks>,
}

impl Report {
    pub(crate) fn add(&mut self, name: &'static str, time: Duration) {
        if !self.names.contains(&name) {
            self.names.push(name);
        }
        self.times.entry(name).or_default().push(time);
    }

    pub(crate) fn rate(&mut self, rate: f64) {
        self.rates.push(rate);
    }

    pub(crate) fn memory(&mut self, name: &'static str, memory: Memory) {
        self.memory.push((name, memory));
    }

    pub(crate) fn checks(&mut self, checks: Checks) {
        self.checks.push(checks);
    }

    pub(crate) fn tables(&self) -> String {
        let mut text = String::from("| change | median | worst | times |\n|---|---|---|---|\n");
        for name in &self.names {
            let mut times = self.times[name].clone();
            times.sort();
            let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
            let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
            let _ = writeln!(
                text,
                "| {name} | {:.1} ms | {:.1} ms | {} |",
                milliseconds(median),
                milliseconds(worst),
                times.len()
            );
        }
        for rate in &self.rates {
            let _ = writeln!(
                text,
                "\n{rate:.0} changes a second of weights in the pool of 1,000, by 32 clients."
            );
        }
        text += "\n| memory | in the agent | in maps |\n|---|---|---|\n";
        for (name, Memory { process, maps }) in &self.memory {
            let _ = writeln!(text, "| {name} | {} | {} |", bytes(*process), bytes(*maps));
        }
        text += &self.checks_table();
        text
    }

    fn checks_table(&self) -> String {
        let mut text = String::from(
            "\n| checked | every | all once after | a second | wanted | of a CPU | µs for one | \
             memory | failed |\n|---|---|---|---|---|---|---|---|---|\n",
        );
        for checks in &self.checks {
            let Checks {
                backends, interval, ..
            } = *checks;
            let _ = writeln!(
                text,
                "| {backends} backends | {interval:?} | {:.1} s | {:.0} | {:.0} | {:.0}% | {:.1} | \
                 {} | {} |",
                checks.first.as_secs_f64(),
                checks.rate,
                backends as f64 / interval.as_secs_f64(),
                checks.cpu * 100.0,
                checks.cpu * 1e6 / checks.rate,
                bytes(checks.memory),
                checks.failed,
            );
        }
        text
    }

    /// The whole page.
    pub(crate) fn document(&self, scale: Scale) -> Result<String> {
        let Scale {
            services, backends, ..
        } = scale;
        let median = |name: &str| {
            let mut times = self.times.get(name).cloned().unwrap_or_default();
            times.sort();
            times.get(times.len() / 2).copied().unwrap_or_default()
        };
        let aim = |name: &str, limit: Duration| {
            let median = median(name);
            let verdict = if median <= limit { "met" } else { "missed" };
            format!("| {name} | {limit:?} | {median:.1?} | {verdict} |\n")
        };
        let aims = [
            aim(WEIGHT, Duration::from_millis(5)),
            aim(LESS, Duration::from_millis(5)),
            aim(MORE, Duration::from_millis(5)),
            aim(ALL_FIRST, Duration::from_millis(50)),
            aim(ALL_LAST, Duration::from_secs(1)),
            aim(EACH_FIRST, Duration::from_millis(50)),
            aim(EACH_LAST, Duration::from_secs(1)),
        ]
        .concat();
        Ok(format!(
            "# What a change costs\n\n\
             Written by `cargo xtask bench changes` {}.\n\n\
             The owner of the state with the real maps and the agent's allocator, in a network namespace; \
             what asks and what watches run beside it. \"{WEIGHT}\", \"{LESS}\" and \"{MORE}\": of one backend in a \
             pool of 1,000 with a ring of 65,536 slots, by turns, from the request to the answer: it \
             is in the maps by then. The start and what follows it: {services} services with a pool \
             each and {backends} backends in all. \"{EACH_FIRST}\" and \"{EACH_LAST}\": one \
             verdict for each pool, told at once, until the slot of the first and of the last of 65 \
             services, spread over all, has another owner. \"{ALL_FIRST}\" and \"{ALL_LAST}\": one \
             verdict in a pool of 100 backends that {services} services share, each of which has a \
             ring of its own.\n\n\
             Memory in the agent is what it has for itself (`RssAnon`), once the maps are filled, in a \
             process for each size; in maps it is what the kernel counts for them (`memlock`), with \
             tables made for as many services and backends as there are, and for 1,048,576 flows. A backend more includes the slots that its pool's \
             ring has more. All of it: {services} services and {backends} backends, with empty \
             tables of flows.\n\n\
             Health checks: the agent as it is shipped, TCP checks of as many backends, in pools of a \
             hundred with a service each, all of which one listening socket serves in another \
             namespace. The time of its threads (/proc/PID/task/*/schedstat) has in it what the \
             kernel does for both ends of the connections, and all else that the agent does; memory \
             is all that it has (`VmRSS`).\n\n\
             {}\n## Aims\n\n| change | aim | measured | |\n|---|---|---|---|\n{aims}\n{ELSEWHERE}",
            crate::machine::description()?,
            self.tables(),
        ))
    }
}

/// What was measured elsewhere, and says so.
const ELSEWHERE: &str = "\
On other machines: Intel Xeon with 2 CPUs, at commit f37577c: another weight 2.4 ms; a backend of all \
services fails, the first 7.5 ms and the last 99 ms; a backend of each pool fails, the first 19 ms and the \
last 857 ms. An AMD EPYC half as fast as the one above, at fc66ff3: 3.1 ms, 11 and 208 ms, 25 ms and 1.13 s.
";

fn bytes(bytes: u64) -> String {
    match bytes {
        0 => "none".to_owned(),
        1..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}
