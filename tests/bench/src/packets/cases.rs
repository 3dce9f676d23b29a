//! What is measured.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use lb_common::abi::bench::{Feed, TEMPLATE};

use super::{
    feeder::Target,
    scene::{BACKEND_PORT, FIRST_PORT, SOURCES, Scene, VIP_PORT},
};

/// Numbers of flows.
pub(crate) const FLOWS: [u32; 3] = [1, 1 << 14, 1 << 20];
/// Numbers of flows for the plot.
pub(crate) const GROWTH: [u32; 6] = [1, 1 << 7, 1 << 10, 1 << 14, 1 << 17, 1 << 20];
/// So many that none comes twice.
pub(crate) const NEW_FLOWS: u32 = 1 << 28;
/// Cases whose growth is plotted.
pub(crate) const GROWING: [(&str, &str); 3] = [
    ("dsr-100", "dsr: stable slot, 100 backends, IPv4"),
    ("nat-100", "nat: stable slot, 100 backends, IPv4"),
    ("tracked", "tracked slot: remembered flow, IPv4"),
];
/// The case of a flow's first packet on a tracked slot.
pub(crate) const MISS: &str = "tracked slot: not remembered, IPv4";

/// One figure of the report: a kind of packet, and how many flows it is of.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) flows: u32,
    pub(crate) target: Target,
    /// Interface that the packets come in by.
    pub(crate) ingress: u32,
    pub(crate) feed: Feed,
    pub(crate) length: usize,
    /// The first packets of these flows, where the data path must have seen them.
    pub(crate) opening: Option<Feed>,
}

/// Flags of a TCP header.
#[derive(Clone, Copy)]
enum Flags {
    Syn,
    Ack,
}

/// All cases, floors first.
pub(crate) fn cases(scene: &Scene) -> Vec<Case> {
    let mut cases = Vec::new();
    for flows in GROWTH {
        cases.extend(floors(scene, flows));
        for (service, name) in GROWING {
            let (opening, _) = from_clients(scene, service, 4, flows, Flags::Syn);
            let (feed, length) = from_clients(scene, service, 4, flows, Flags::Ack);
            cases.push(Case {
                name: name.to_owned(),
                flows,
                target: Target::Weir,
                ingress: scene.client_side,
                feed,
                length,
                opening: (service == "tracked").then_some(opening),
            });
        }
    }
    for flows in FLOWS {
        for family in [4, 6] {
            let mut add = |name: &str, (feed, length): (Feed, usize), opening, ingress| {
                cases.push(Case {
                    name: format!("{name}, IPv{family}"),
                    flows,
                    target: Target::Weir,
                    ingress,
                    feed,
                    length,
                    opening,
                });
            };
            let client = scene.client_side;
            for mode in ["dsr", "nat"] {
                let packet = from_clients(scene, mode, family, flows, Flags::Ack);
                add(&format!("{mode}: stable slot"), packet, None, client);
            }
            let syn = from_clients(scene, "dsr", family, flows, Flags::Syn);
            add("dsr: SYN, stable slot", syn, None, client);
            add(
                "nat: answer",
                nat_answers(scene, family, flows),
                None,
                scene.backend_side,
            );
            for (mode, name) in [
                ("full-nat", "full-nat: known flow"),
                ("least-connections", "least-connections: remembered flow"),
            ] {
                let (opening, _) = from_clients(scene, mode, family, flows, Flags::Syn);
                let packet = from_clients(scene, mode, family, flows, Flags::Ack);
                add(name, packet, Some(opening), client);
            }
            let packet = full_nat_answers(scene, family, flows);
            add("full-nat: answer", packet, None, scene.backend_side);
        }
    }
    cases
}

/// Flows' first packets on a tracked slot, which would have the remembered flows of the other
/// cases forgotten.
pub(crate) fn misses(scene: &Scene) -> Vec<Case> {
    let mut cases = floors(scene, NEW_FLOWS);
    let (feed, length) = from_clients(scene, "tracked", 4, NEW_FLOWS, Flags::Ack);
    cases.push(Case {
        name: MISS.to_owned(),
        flows: NEW_FLOWS,
        target: Target::Weir,
        ingress: scene.client_side,
        feed,
        length,
        opening: None,
    });
    cases
}

fn floors(scene: &Scene, flows: u32) -> Vec<Case> {
    let floors = [
        ("feeding alone", Target::Nothing),
        ("floor: swap MACs", Target::Swap),
        ("floor: parse to the ports", Target::Parse),
    ];
    let floors = floors.into_iter().map(|(name, target)| {
        let (feed, length) = from_clients(scene, "dsr", 4, flows, Flags::Ack);
        Case {
            name: name.to_owned(),
            flows,
            target,
            ingress: scene.client_side,
            feed,
            length,
            opening: None,
        }
    });
    floors.collect()
}

/// Sixteen connections of each client.
const LOW_BITS: u32 = 4;

fn from_clients(
    scene: &Scene,
    mode: &'static str,
    family: u8,
    flows: u32,
    flags: Flags,
) -> (Feed, usize) {
    let vip = scene.services[&(mode, family)].vip;
    let (template, length) = packet(client(family), vip, (1024, VIP_PORT), flags);
    let feed = Feed {
        template,
        mask: flows - 1,
        address: last_word(client(family)),
        // The source's last four bytes.
        address_at: if family == 4 { 26 } else { 34 },
        port_at: if family == 4 { 34 } else { 54 },
        low_bits: LOW_BITS,
        low_mask: (1 << LOW_BITS) - 1,
        high_step: 1,
        low_step: 0,
        port: 1024,
        port_from_high: 0,
        target: 0,
        reserved: 0,
    };
    (feed, length)
}

fn nat_answers(scene: &Scene, family: u8, flows: u32) -> (Feed, usize) {
    let backend = scene.services[&("nat", family)].backend;
    let (template, length) = packet(backend, client(family), (BACKEND_PORT, 1024), Flags::Ack);
    let feed = Feed {
        template,
        mask: flows - 1,
        address: last_word(client(family)),
        address_at: if family == 4 { 30 } else { 50 },
        port_at: if family == 4 { 36 } else { 56 },
        low_bits: LOW_BITS,
        low_mask: (1 << LOW_BITS) - 1,
        high_step: 1,
        low_step: 0,
        port: 1024,
        port_from_high: 0,
        target: 0,
        reserved: 0,
    };
    (feed, length)
}

/// Source endpoints are given in turn, each CPU its own: flow `n` has turn `n`, and the turn's
/// position is `n * CPUs + CPU`, its address first.
fn full_nat_answers(scene: &Scene, family: u8, flows: u32) -> (Feed, usize) {
    let backend = scene.services[&("full-nat", family)].backend;
    let source = scene.sources[&family];
    let (template, length) = packet(backend, source, (BACKEND_PORT, FIRST_PORT), Flags::Ack);
    let low_bits = SOURCES.trailing_zeros() - scene.cpus.trailing_zeros();
    let feed = Feed {
        template,
        mask: flows - 1,
        address: last_word(source) + scene.cpu,
        address_at: if family == 4 { 30 } else { 50 },
        port_at: if family == 4 { 36 } else { 56 },
        low_bits,
        low_mask: (1 << low_bits) - 1,
        high_step: 0,
        low_step: scene.cpus,
        port: FIRST_PORT.into(),
        port_from_high: 1,
        target: 0,
        reserved: 0,
    };
    (feed, length)
}

fn client(family: u8) -> IpAddr {
    match family {
        4 => [10, 0, 0, 1].into(),
        _ => [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1].into(),
    }
}

fn last_word(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => u128::from(address) as u32,
    }
}

/// A packet, and the template of its first bytes: behind a shorter packet's end there is
/// padding.
fn packet(
    source: IpAddr,
    destination: IpAddr,
    (from, to): (u16, u16),
    flags: Flags,
) -> ([u8; TEMPLATE], usize) {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]);
    let ip = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ethernet.ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ethernet.ipv6(source.octets(), destination.octets(), 64)
        }
        _ => unreachable!("a packet has one family"),
    };
    let tcp = ip.tcp(from, to, 1, 1000);
    let tcp = match flags {
        Flags::Syn => tcp.syn(),
        Flags::Ack => tcp.ack(1),
    };
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    tcp.write(&mut bytes, &[0; 32]).unwrap_or_default();
    let mut template = [0; TEMPLATE];
    template.copy_from_slice(&bytes[..TEMPLATE]);
    (template, bytes.len())
}
