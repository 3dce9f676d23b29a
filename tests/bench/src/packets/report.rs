//! The figures, as a table and as a document.

use std::fmt::Write as _;

use anyhow::Result;

use super::{
    cases::{Case, FEEDING, FLOOR, FLOWS, GROWING, GROWTH, MISS, NEW_FLOWS},
    growth, scene,
};
use crate::{machine, plot::Bars, statistics::quantile};

/// What was measured, case by case in their order.
#[derive(Default)]
pub(crate) struct Report {
    cases: Vec<(String, u32, Vec<f64>)>,
    tables: Vec<(u32, Vec<f64>)>,
}

/// What was measured elsewhere, and says so.
const OTHERS: &str = "\
## Others

Not of this run: of another, on a machine of this kind, TCP over IPv4, 5th percentiles, nanoseconds \
above an empty program. Compare sizes, not digits.

| program | 1 flow | 16,384 flows |
|---|---|---|
| swap MACs, send back | 1 | 1 |
| parse to the ports | 7 | 6 |
| least that balances: VIP hash, slot, backend, IPIP, no flow table | 31 | 40 |
| the same with an LRU flow table | 50 | 175 |
| katran, IPIP, flow in its table | 89 | 232 |
| katran, GUE | 172 | 290 |

katran's ring of 65,537 slots takes 2.3 ms to build for 100 or 1,000 backends.

This benchmark, nanoseconds above the parsing floor, medians, for 1, 16,384 and 1,048,576 flows: at \
commit b285099, before services, slots and backends were found without look-ups, on an AMD EPYC minutes \
before cbe0492 was measured there: `dsr` on a stable slot 27, 27, 27 (cbe0492: 22, 22, 22), with 100 \
backends 27, 32, 32 (22, 27, 27); `nat` 32, 32, 32 (26, 26, 26), with 100 backends 32, 38, 38 (26, 32, \
33); over IPv6 `dsr` 32, 32, 31 (25, 24, 25), `nat` 36, 36, 36 (30, 30, 30). At 70c8623, on an Intel \
Xeon: `dsr` 20, 20, 19, with 100 backends 20, 24, 24; `nat` 24, 24, 24, with 100 backends 24, 29, 29.

An answer that takes some 50 ns more than the other family's has a backend that shares its place in the \
array in front of `RETURNS` with another, so that the map is asked: with cbe0492 IPv6's, by chance.
";

impl Report {
    /// A round of a case.
    pub(crate) fn add(&mut self, case: &Case, nanoseconds: f64) {
        let found = self.cases.iter_mut();
        let mut found = found.filter(|(name, flows, _)| *name == case.name && *flows == case.flows);
        match found.next() {
            Some((.., times)) => times.push(nanoseconds),
            None => {
                let first = vec![nanoseconds];
                self.cases.push((case.name.clone(), case.flows, first));
            }
        }
    }

    /// Times of building a table for so many backends.
    pub(crate) fn add_table(&mut self, backends: u32, nanoseconds: Vec<f64>) {
        self.tables.push((backends, nanoseconds));
    }

    /// Nanoseconds above feeding: the part of the rounds below it is `part`.
    fn cost(&self, name: &str, flows: u32, part: f64) -> f64 {
        let of = |name: &str| {
            let mut cases = self.cases.iter();
            let found = cases.find(|(its, number, _)| its == name && *number == flows);
            found.map_or(f64::NAN, |(.., times)| quantile(times, part))
        };
        of(name) - of(FEEDING)
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for (name, flows, _) in &self.cases {
            if name != FEEDING && *flows == FLOWS[0] {
                names.push(name);
            }
        }
        let mut text = String::from(
            "| packet | 1 flow | 16,384 flows | 1,048,576 flows | above the parsing floor |\n\
             |---|---|---|---|---|\n",
        );
        for name in names {
            let _ = write!(text, "| {name} |");
            for flows in FLOWS {
                let (median, low) = (self.cost(name, flows, 0.5), self.cost(name, flows, 0.05));
                let _ = write!(text, " {median:.0} ({low:.0}) |");
            }
            let above: Vec<_> = FLOWS
                .iter()
                .map(|&flows| self.cost(name, flows, 0.5) - self.cost(FLOOR, flows, 0.5))
                .map(|above| format!("{above:.0}"))
                .collect();
            let _ = writeln!(text, " {} |", above.join(", "));
        }
        let [miss, low] = [0.5, 0.05].map(|part| self.cost(MISS, NEW_FLOWS, part));
        let above = miss - self.cost(FLOOR, NEW_FLOWS, 0.5);
        let _ = writeln!(
            text,
            "\nA packet on a tracked slot whose flow nobody remembers goes to the slot's base and is \
             remembered: {miss:.0} ({low:.0}) ns, {above:.0} above the parsing floor, every packet of \
             another flow, in a table for {} flows.",
            scene::FLOWS
        );
        for (backends, times) in &self.tables {
            let milliseconds = quantile(times, 0.5) / 1e6;
            let _ = writeln!(
                text,
                "\nA table of 65,536 slots for {backends} backends is built in {milliseconds:.2} ms."
            );
        }
        text
    }

    /// How the cost grows with the number of flows.
    ///
    /// # Errors
    ///
    /// It cannot be drawn.
    pub(crate) fn plot(&self) -> Result<String> {
        let groups: Vec<_> = GROWTH
            .iter()
            .map(|&flows| {
                let costs = GROWING.map(|(_, name)| self.cost(name, flows, 0.5).max(1.0));
                (format!("{flows} flows"), costs.to_vec())
            })
            .collect();
        Bars {
            title: "What a packet costs, by the number of flows",
            unit: "nanoseconds a packet, median",
            series: &GROWING.map(|(_, name)| name),
            groups: &groups,
        }
        .svg()
    }

    /// Names of what is measured by the number of services and backends.
    fn growing(&self) -> impl Iterator<Item = &str> {
        self.cases
            .iter()
            .filter(|(name, flows, _)| *flows == growth::FLOWS && !name.starts_with("floor"))
            .map(|(name, ..)| name.as_str())
            .filter(|name| *name != FEEDING)
    }

    /// How the cost grows with the numbers of services and backends, as a table.
    pub(crate) fn growth(&self) -> String {
        let mut text = String::from(
            "| services, or backends | ns | above the parsing floor |\n|---|---|---|\n",
        );
        for name in self.growing() {
            let [median, low] = [0.5, 0.05].map(|part| self.cost(name, growth::FLOWS, part));
            let above = median - self.cost(FLOOR, growth::FLOWS, 0.5);
            let _ = writeln!(text, "| {name} | {median:.0} ({low:.0}) | {above:.0} |");
        }
        text
    }

    /// The same, drawn.
    ///
    /// # Errors
    ///
    /// It cannot be drawn.
    pub(crate) fn growth_plot(&self) -> Result<String> {
        let cost = |name: &str| vec![self.cost(name, growth::FLOWS, 0.5).max(1.0)];
        let groups: Vec<_> = self
            .growing()
            .map(|name| (name.to_owned(), cost(name)))
            .collect();
        Bars {
            title: "What a packet costs, by the numbers of services and backends",
            unit: "nanoseconds a packet, median",
            series: &["nat: stable slot, IPv4"],
            groups: &groups,
        }
        .svg()
    }

    /// The whole page.
    pub(crate) fn document(&self, rounds: usize, packets: u32) -> Result<String> {
        let machine = machine::description()?;
        let median = |name: &str, flows| self.cost(name, flows, 0.5) - self.cost(FLOOR, flows, 0.5);
        let aim = |name: &str, flows, limit: f64| {
            let above = median(name, flows);
            let verdict = if above <= limit { "met" } else { "missed" };
            format!("| {name}, {flows} flows | {limit:.0} ns | {above:.0} ns | {verdict} |\n")
        };
        let aims = [
            aim("dsr: stable slot, IPv4", FLOWS[0], 35.0),
            aim("dsr: stable slot, IPv4", FLOWS[1], 50.0),
            aim("dsr: stable slot, IPv4", FLOWS[2], 50.0),
            aim("dsr: stable slot, IPv6", FLOWS[0], 50.0),
            aim(GROWING[0].1, FLOWS[0], 35.0),
            aim(GROWING[0].1, FLOWS[1], 50.0),
            aim(GROWING[0].1, FLOWS[2], 50.0),
            aim("nat: stable slot, IPv4", FLOWS[0], 70.0),
            aim("nat: stable slot, IPv6", FLOWS[0], 70.0),
        ]
        .concat();
        Ok(format!(
            "# What a packet costs\n\n\
             Written by `cargo xtask bench` {machine}.\n\n\
             Nanoseconds a packet by BPF_PROG_TEST_RUN, TCP, 32 bytes of payload, counters on: \
             medians, and 5th percentiles in parentheses, of {rounds} rounds of {packets} packets, \
             all cases by turns in one run on one CPU. A program in front writes every packet anew, \
             gives it the next flow's address and port (16 flows a client) in an order that no cache \
             can guess, and hands it on by a tail call; what that costs alone is subtracted. The \
             floors are handed packets in the same way. The flows of `full-nat` and of \
             least-connections, and those of the tracked slot, were opened before. Services have one backend, \
             or a hundred and a ring of 16,384 slots where it says so. `nat: answer` finds the way to its client in \
             the kernel's routes, cached for a second in 4,096 entries a CPU: with more clients than \
             that it is looked up again.\n\n\
             {}\n\
             ![By the number of flows](benchmarks.svg)\n\n\
             ## With services and backends\n\n\
             `nat`, stable slots, IPv4, {} flows. First packets are for so many services in turn, \
             of 4,096 with a backend each; then for one with so many backends, and for all, where \
             4,096 have 100,000 backends in all. What differs is how many entries packets touch, \
             and so how often the caches miss: on services, slots, backends and counters.\n\n{}\n\
             ![By the numbers of services and backends](benchmarks-growth.svg)\n\n\
             ## Aims\n\n\
             | packet | aim, above the parsing floor | measured | |\n|---|---|---|---|\n{aims}\n{OTHERS}",
            self.table(),
            growth::FLOWS,
            self.growth()
        ))
    }
}
