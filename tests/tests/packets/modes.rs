//! Every mode, protocol and family, in both directions.

use anyhow::Result;
use lb_common::reason::Reason;
use lb_userspace::desired::{Mode, Protocol};
use weir_tests::wire::{Case, Packet, Side, Verdict, World};

use crate::scene::{Kind, Shape, everything, forget_next_hops, kinds};

/// What clients and backends send: in words, and what is changed in a plain packet.
const SHAPES: &[(&str, Shape)] = &[
    ("data", |packet| packet),
    ("no data", |packet| packet.carrying(0)),
    ("an odd number of bytes", |packet| packet.carrying(1)),
    ("padding behind its end", |packet| {
        packet.carrying(0).trailed(6)
    }),
    ("a trailer behind data", |packet| packet.trailed(3)),
    ("the last TTL that can be routed", |packet| packet.ttl(2)),
    ("the highest TTL", |packet| packet.ttl(255)),
    ("an unmarked IP header", |packet| Packet {
        marked: false,
        ..packet
    }),
    ("a VLAN tag that the way out does not have", |packet| {
        packet.vlan(7)
    }),
];

const TCP_SHAPES: &[(&str, Shape)] = &[
    ("a FIN", |packet| packet.header(|tcp| tcp.fin = true)),
    ("all flags but SYN and RST", |packet| {
        packet.header(|tcp| (tcp.psh, tcp.urg, tcp.ece, tcp.cwr) = (true, true, true, true))
    }),
    ("options", |packet| {
        packet.header(|tcp| {
            tcp.set_options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])
                .unwrap()
        })
    }),
];

const UDP_OVER_IPV4_SHAPES: &[(&str, Shape)] = &[
    ("no checksum", Packet::without_checksum),
    ("no checksum and no data", |packet| {
        packet.without_checksum().carrying(0)
    }),
];

const IPV4_SHAPES: &[(&str, Shape)] = &[
    ("one word of options", |packet| {
        packet.options(&[1, 1, 1, 0])
    }),
    ("all options that there may be", |packet| {
        packet.options(&[1; 40])
    }),
];

fn shapes(kind: Kind) -> impl Iterator<Item = &'static (&'static str, Shape)> {
    let of_protocol = match (kind.protocol, kind.family) {
        (Protocol::Tcp, _) => TCP_SHAPES,
        (Protocol::Udp, 4) => UDP_OVER_IPV4_SHAPES,
        _ => &[],
    };
    let of_family = if kind.family == 4 { IPV4_SHAPES } else { &[] };
    [SHAPES, of_protocol, of_family].into_iter().flatten()
}

/// Out of one interface what came in by the other, and back out of the same.
fn both_sides(what: &str, kind: Kind, packet: &Packet, out: &Packet, from: Side) -> [Case; 2] {
    let service = match packet.destination == kind.vip() {
        true => kind.name(),
        false => String::new(),
    };
    let verdict = |side| match side == from {
        true => Verdict::Redirect(out.clone()),
        false => Verdict::Tx(out.clone()),
    };
    [Side::Client, Side::Backend].map(|side| Case {
        what: format!("{}: {what}, in on {side:?}", kind.name()),
        side,
        packet: packet.clone(),
        verdict: verdict(side),
        service: service.clone(),
    })
}

fn cases(kind: Kind) -> Vec<Case> {
    let opening = kind.request().opening();
    let mut cases = Vec::new();
    let mut there = |what: &str, packet: Packet| {
        let out = kind.forwarded(packet.clone()).vlan(None);
        cases.extend(both_sides(what, kind, &packet, &out, Side::Client));
    };
    there("the first packet", opening);
    for (what, shape) in shapes(kind) {
        there(&format!("a request with {what}"), shape(kind.request()));
    }
    if kind.mode == Mode::Dsr {
        // It is not routed, so its TTL stays.
        there("a request with a TTL of 1", kind.request().ttl(1));
        return cases;
    }
    for (what, shape) in shapes(kind) {
        let packet = shape(kind.answer());
        let out = kind.answered(packet.clone()).vlan(None);
        let what = format!("an answer with {what}");
        cases.extend(both_sides(&what, kind, &packet, &out, Side::Backend));
    }
    let expired = [
        (Side::Client, kind.request()),
        (Side::Backend, kind.answer()),
    ];
    for (side, packet) in expired {
        cases.extend([0, 1].map(|ttl| Case {
            what: format!("{}: TTL {ttl}, in on {side:?}", kind.name()),
            side,
            packet: packet.clone().ttl(ttl),
            verdict: Verdict::Drop(Reason::TtlExceeded),
            service: kind.name(),
        }));
    }
    cases
}

#[test]
fn every_mode_in_both_directions() -> Result<()> {
    World::with(everything(), |world| {
        world.resolved()?;
        kinds()
            .flat_map(cases)
            .try_for_each(|case| case.check(world))
    })
}

/// The same without the agent's next hops: the program asks the kernel's routes.
#[test]
fn every_mode_by_the_kernels_routes() -> Result<()> {
    World::with(everything(), |world| {
        world.resolved()?;
        forget_next_hops(world)?;
        kinds()
            .flat_map(cases)
            .try_for_each(|case| case.check(world))
    })
}
