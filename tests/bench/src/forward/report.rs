//! The figures, as tables and as a document.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Result;

use super::{
    Results, connections,
    contender::{DNAT, DROP, DSR, FULL_NAT, MASQUERADE, NAT, RELAY},
    packets,
    tcp::{HAPROXY, NGINX},
};
use crate::{
    plot::Bars,
    statistics::{median, median_of_pairs},
};

impl Results {
    fn frames(&self, name: &str, kind: packets::Kind) -> &[packets::Round] {
        let mut all = self.packets.iter();
        let found = all.find(|series| series.name == name && series.kind == kind);
        found.map_or(&[], |series| &series.rounds)
    }

    /// Nanoseconds a packet, all in all.
    fn each(&self, name: &str, kind: packets::Kind) -> f64 {
        median(
            self.frames(name, kind)
                .iter()
                .map(|round| round.nanoseconds),
        )
    }

    /// Nanoseconds a packet more than another takes.
    fn more(&self, name: &str, other: &str, kind: packets::Kind) -> f64 {
        let (own, other) = (self.frames(name, kind), self.frames(other, kind));
        median_of_pairs(own, other, |own, other| own.nanoseconds - other.nanoseconds)
    }

    /// Nanoseconds more than dropping it.
    fn added(&self, name: &str, kind: packets::Kind) -> f64 {
        self.more(name, DROP, kind)
    }

    /// Packets that arrive, a second.
    fn rate(&self, name: &str, kind: packets::Kind) -> f64 {
        1e9 / self.each(name, kind) * self.arrived(name, kind)
    }

    /// Part of the packets a second that arrive through the floor.
    fn of_floor(&self, name: &str, kind: packets::Kind) -> f64 {
        let (own, floor) = (self.frames(name, kind), self.frames(RELAY, kind));
        let faster = median_of_pairs(own, floor, |own, floor| floor.nanoseconds / own.nanoseconds);
        faster * self.arrived(name, kind) / self.arrived(RELAY, kind)
    }

    /// Part of the frames that arrived, of all rounds.
    fn arrived(&self, name: &str, kind: packets::Kind) -> f64 {
        let rounds = self.frames(name, kind).iter();
        let (sent, arrived) = rounds.fold((0, 0), |(sent, arrived), round| {
            (sent + round.sent, arrived + round.arrived)
        });
        arrived as f64 / sent as f64
    }

    fn exchanges(&self, name: &str, kind: connections::Kind) -> &[connections::Round] {
        let mut all = self.connections.iter();
        let found = all.find(|series| series.name == name && series.kind == kind);
        found.map_or(&[], |series| &series.rounds)
    }

    /// Microseconds of the balancer's for one, and how many a second.
    fn exchange(&self, name: &str, kind: connections::Kind) -> (f64, f64) {
        let rounds = || self.exchanges(name, kind).iter();
        (
            median(rounds().map(|round| round.microseconds)),
            median(rounds().map(|round| round.rate)),
        )
    }
}

/// Both tables; of a part that was not measured, none.
pub(crate) fn tables(results: &Results) -> String {
    let mut text = String::new();
    if !results.packets.is_empty() {
        let _ = writeln!(text, "{}", packets_table(results));
    }
    if !results.connections.is_empty() {
        let _ = writeln!(text, "{}", connections_table(results));
    }
    text
}

fn packets_table(results: &Results) -> String {
    use packets::Kind::{New, Steady};
    let mut text = String::from(
        "| | steady: M/s | of the floor | ns added | of DNAT's | of masquerade's | lost \
         | new: M/s | of the floor | ns added | of DNAT's | of masquerade's | lost |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for name in [DROP, RELAY, DSR, NAT, FULL_NAT, DNAT, MASQUERADE] {
        let _ = write!(text, "| {name} |");
        for kind in [Steady, New] {
            let rate = results.rate(name, kind);
            let _ = write!(text, " {:.2} |", rate / 1e6);
            let _ = match name {
                DROP => write!(text, " | | | |"),
                _ => {
                    let added = results.added(name, kind);
                    let of = |other| {
                        let part = results.added(other, kind) / added;
                        if part < 1.05 {
                            format!("{:.2}", 1.0 / part)
                        } else {
                            format!("1/{part:.1}")
                        }
                    };
                    let floor = 100.0 * results.of_floor(name, kind);
                    let (dnat, masquerade) = (of(DNAT), of(MASQUERADE));
                    write!(text, " {floor:.0}% | {added:.0} | {dnat} | {masquerade} |")
                }
            };
            let lost = 1.0 - results.arrived(name, kind);
            let _ = write!(text, " {:.2}% |", 100.0 * lost);
        }
        text.push('\n');
    }
    text
}

fn connections_table(results: &Results) -> String {
    use connections::Kind::{Connections, Requests};
    let mut text = String::from(
        "| | connections a second | µs of the balancer's CPU for one | of the floor's \
         | requests a second, connections kept | µs for one | of the floor's | errors |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for name in [RELAY, DSR, NAT, FULL_NAT, DNAT, MASQUERADE, NGINX, HAPROXY] {
        let _ = write!(text, "| {name} |");
        for kind in [Connections, Requests] {
            let ((time, rate), (floor, _)) =
                (results.exchange(name, kind), results.exchange(RELAY, kind));
            let _ = write!(text, " {rate:.0} | {time:.2} | {:.2} |", time / floor);
        }
        let both = [Connections, Requests].map(|kind| results.exchanges(name, kind));
        let failed: u64 = both
            .iter()
            .copied()
            .flatten()
            .map(|round| round.failed)
            .sum();
        let _ = writeln!(text, " {failed} |");
    }
    text
}

/// What was aimed at, and whether it was reached.
fn aims(results: &Results) -> String {
    use packets::Kind::{New, Steady};
    let mut text = String::from("| | aim | measured | |\n|---|---|---|---|\n");
    let mut line = |what: String, aim: String, measured: String, met: bool| {
        let verdict = if met { "met" } else { "missed" };
        let _ = writeln!(text, "| {what} | {aim} | {measured} | {verdict} |");
    };
    let flows = |kind| {
        if kind == Steady {
            "steady flows"
        } else {
            "new flows"
        }
    };
    for name in [DSR, NAT] {
        for kind in [Steady, New] {
            let part = results.of_floor(name, kind);
            let what = format!("{name}, packets a second, {}", flows(kind));
            line(
                what,
                "90% of the floor's".into(),
                format!("{:.0}%", 100.0 * part),
                part >= 0.895,
            );
        }
    }
    for (name, other, limits) in [
        (DSR, DNAT, [(Steady, 8.0), (New, 20.0)]),
        (NAT, DNAT, [(Steady, 8.0), (New, 20.0)]),
        (FULL_NAT, MASQUERADE, [(Steady, 4.0), (New, 4.0)]),
    ] {
        for (kind, limit) in limits {
            let times = results.added(other, kind) / results.added(name, kind);
            let what = format!("{name}, CPU added, {}", flows(kind));
            let aim = format!("1/{limit:.0} of {other}'s");
            line(what, aim, format!("1/{times:.1}"), times >= limit);
        }
    }
    text
}

/// What was measured elsewhere, and says so.
const ELSEWHERE: &str = "\
On another machine, Intel Xeon with 2 CPUs, at commit f37577c, nanoseconds added, steady and new: floor 56 \
and 36, `dsr` 81 and 54, `nat` 90 and 75, `full-nat` 137 and 998, nftables DNAT 732 and 2,720, with \
masquerade 709 and 3,993. Of nftables' that is for `dsr` 1/9.1 and 1/50, for `nat` 1/8.1 and 1/36, and for \
`full-nat` of masquerade's 1/5.2 and 1/4.0; of the floor's packets a second, `dsr` sent 84 and 87%, `nat` 79 \
and 75%. 90% of the floor leave 15 ns there, and no program that looks up a service, a slot and a backend has \
been seen to take as little: the smallest of [the others](benchmarks.md#others) takes 31 ns.

What a frame costs here depends on what else the host does. In eleven rounds of eight million frames on another \
EPYC, at a56b27d, `dsr` sent 92 and 89% of the floor's packets a second, `nat` 85 and 85%, and a new flow of \
`full-nat` took 1/3.8 of masquerade's. On the machine of this run, when its host had less to do (a floor of 76 and \
74 ns), `dsr` sent 88 and 87%, `nat` 85 and 85% at f60d103, before services, slots and backends were found without \
look-ups.

What would make up for the rest was looked for at 772211e, by turns, in 41 rounds of `nat`, where a difference \
is uncertain by 3 to 6 ns: counters in tables of the program's, and telling the compiler which branches are rare, \
made none that showed; with such counters and without all that only some packets need (`full-nat`, tracked slots, \
answers, routes) it took 6 ns less; a service that its VIP's place alone tells took 0 to 4 ns less.
";

/// What a program may take beside the redirect, what Weir's take, and for what.
fn budget(results: &Results) -> String {
    let floor = results.each(RELAY, packets::Kind::Steady);
    let beside = |name| results.more(name, RELAY, packets::Kind::Steady);
    let (dsr, nat, full_nat) = (beside(DSR), beside(NAT), beside(FULL_NAT));
    format!(
        "\n90% of the floor leave a program {:.0} ns beside the redirect; with steady flows Weir takes \
         {dsr:.0} ns (`dsr`), {nat:.0} ns (`nat`) and {full_nat:.0} ns (`full-nat`). The floor looks at no \
         frame. A program that balances reads the headers, and reaches into four tables, each for what the \
         last one said (the VIP's place, its service, the slot, the backend); it counts for the service and \
         for the backend. [What a packet costs](benchmarks.md) has that alone.\n\n\
         A new flow of `full-nat` puts an entry into each of two hash tables, {new:.0} ns with its forwarding. \
         By a profile nine tenths of that are the kernel's tables: a half the two insertions (a lock on the \
         place and one on the free entries, and an entry that is in no cache), a quarter looking first \
         whether the keys are there, an eighth hashing keys of 40 bytes. Their memory is taken when the \
         agent starts; as it came with the flows, a third was added.\n",
        floor / 0.9 - floor,
        new = results.added(FULL_NAT, packets::Kind::New),
    )
}

/// Writes the page, and its plots beside it.
pub(crate) fn write(results: &Results, page: &Path) -> Result<()> {
    let name = page.file_stem().unwrap_or_default().to_string_lossy();
    let mut text = String::from("# What forwarding costs, beside others\n");
    if !results.packets.is_empty() {
        let plot = format!("{name}-packets.svg");
        fs::write(page.with_file_name(&plot), packets_plot(results)?)?;
        let rounds = results.frames(DROP, packets::Kind::Steady).len();
        let _ = write!(
            text,
            "\n## Packets\n\n\
             Written by `cargo xtask bench forward` {}.\n\n\
             Datagrams of 60 bytes with checksums, {rounds} rounds, all by turns in one run; medians, and of what \
             one is to another the median of what it was in each round. A \
             generator in the kernel (BPF_PROG_TEST_RUN with live frames) sends two million frames a round, through nftables half a \
             million, from a client's namespace over veth; sixteen backends are behind one link. The generator, \
             the balancer and the backends' NIC, which counts and drops, share one core: the time that \
             a packet takes is the CPU time that it costs. What it takes more than a packet that is \
             dropped at the balancer's door, is what forwarding it adds, with the way to the backend's NIC. \
             The floor is an XDP program that redirects every frame, unread, through a device map. \
             *Steady*: 1,024 flows. *New*: every frame is of another, from 16,384 ports of as many clients; \
             those that remember each flow (`full-nat`, nftables) are sent 200,000 a round, and \
             conntrack is emptied before. nftables: `dnat to jhash ip saddr . udp sport mod 16 map`. The \
             agent runs on the other core, as does what the kernel does later about expired flows. Before \
             anything is measured, two frames of each of 1,024 flows are looked at where they arrive: \
             addresses, TTL, checksums, every backend used, no flow moved.\n\n\
             ![CPU time added]({plot})\n\n{}\n### Aims\n\n{}{}\n{ELSEWHERE}",
            results.packets_on,
            packets_table(results),
            aims(results),
            budget(results)
        );
    }
    if !results.connections.is_empty() {
        let plot = format!("{name}-connections.svg");
        fs::write(page.with_file_name(&plot), connections_plot(results)?)?;
        let rounds = results.exchanges(RELAY, connections::Kind::Requests).len();
        let _ = write!(
            text,
            "\n## Connections\n\n\
             Written by `cargo xtask bench forward` {}.\n\n\
             wrk with 64 connections, a second a round, {rounds} rounds by turns, medians, and two nginx that \
             answer a few bytes (the floor, a redirect both ways: one); a connection for each \
             request, or connections that are kept. The balancer has a core to itself: its NICs are polled by \
             threads that are pinned there (threaded NAPI), and their time and that of the agent \
             or proxy is read from /proc/PID/schedstat. The client, the servers and their NICs share \
             the other core and are the limit, so rates say little, and the balancer's time for one \
             connection or request, both ways, is what to compare. With `dsr`, answers do not come by. HAProxy and nginx \
             are Debian's, with one thread or process.\n\n\
             ![The balancer's CPU time]({plot})\n\n{}",
            results.connections_on,
            connections_table(results)
        );
    }
    Ok(fs::write(page, text)?)
}

fn packets_plot(results: &Results) -> Result<String> {
    use packets::Kind::{New, Steady};
    let names = [RELAY, DSR, NAT, FULL_NAT, DNAT, MASQUERADE];
    let groups = names.map(|name| {
        let added = [Steady, New].map(|kind| results.added(name, kind).max(1.0));
        (name.to_owned(), added.to_vec())
    });
    Bars {
        title: "CPU time that forwarding a packet adds to dropping it",
        unit: "nanoseconds a packet (logarithmic)",
        series: &["1,024 steady flows", "a new flow for each packet"],
        groups: &groups,
    }
    .svg()
}

fn connections_plot(results: &Results) -> Result<String> {
    use connections::Kind::{Connections, Requests};
    let names = [RELAY, DSR, NAT, FULL_NAT, DNAT, MASQUERADE, NGINX, HAPROXY];
    let groups = names.map(|name| {
        let times = [Connections, Requests].map(|kind| results.exchange(name, kind).0);
        (name.to_owned(), times.to_vec())
    });
    Bars {
        title: "CPU time of the balancer",
        unit: "microseconds (logarithmic)",
        series: &[
            "a connection with one request",
            "a request on a connection that is kept",
        ],
        groups: &groups,
    }
    .svg()
}
