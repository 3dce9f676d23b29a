//! What is measured.

use std::net::IpAddr;

use lb_common::abi::bench::Feed;

use super::{
    feed::{End, Flags, feed},
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
/// What is subtracted from all.
pub(crate) const FEEDING: &str = "feeding alone";
/// What the others are compared with.
pub(crate) const FLOOR: &str = "floor: parse to the ports";
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
    let packet = from_clients(scene, "dsr", 4, flows, Flags::Ack);
    floors_of(packet, flows, scene.client_side).into()
}

/// What it costs to do next to nothing with packets.
pub(crate) fn floors_of((feed, length): (Feed, usize), flows: u32, ingress: u32) -> [Case; 3] {
    let floors = [
        (FEEDING, Target::Nothing),
        ("floor: swap MACs", Target::Swap),
        (FLOOR, Target::Parse),
    ];
    floors.map(|(name, target)| Case {
        name: name.to_owned(),
        flows,
        target,
        ingress,
        feed,
        length,
        opening: None,
    })
}

/// Sixteen connections of each client.
const LOW_BITS: u32 = 4;
/// The first port of a client's.
const CLIENT_PORT: u16 = 1024;

fn from_clients(
    scene: &Scene,
    mode: &'static str,
    family: u8,
    flows: u32,
    flags: Flags,
) -> (Feed, usize) {
    let vip = scene.services[&(mode, family)].vip;
    let ends = ((client(family), CLIENT_PORT), (vip, VIP_PORT));
    feed(ends, flags, (End::Source, End::Source), flows, LOW_BITS)
}

fn nat_answers(scene: &Scene, family: u8, flows: u32) -> (Feed, usize) {
    let backend = scene.services[&("nat", family)].backend;
    let ends = ((backend, BACKEND_PORT), (client(family), CLIENT_PORT));
    let varies = (End::Destination, End::Destination);
    feed(ends, Flags::Ack, varies, flows, LOW_BITS)
}

/// Source endpoints are given in turn, each CPU its own: flow `n` has turn `n`, and the turn's
/// position is `n * CPUs + CPU`, its address first.
fn full_nat_answers(scene: &Scene, family: u8, flows: u32) -> (Feed, usize) {
    let backend = scene.services[&("full-nat", family)].backend;
    let ends = (
        (backend, BACKEND_PORT),
        (scene.sources[&family], FIRST_PORT),
    );
    let low_bits = SOURCES.trailing_zeros() - scene.cpus.trailing_zeros();
    let varies = (End::Destination, End::Destination);
    let (feed, length) = feed(ends, Flags::Ack, varies, flows, low_bits);
    let feed = Feed {
        address: feed.address + scene.cpu,
        high_step: 0,
        low_step: scene.cpus,
        port_from_high: 1,
        ..feed
    };
    (feed, length)
}

/// The first client.
pub(crate) fn client(family: u8) -> IpAddr {
    match family {
        4 => [10, 0, 0, 1].into(),
        _ => [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1].into(),
    }
}
