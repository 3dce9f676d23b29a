//! What needs no kernel, or devices that not every kernel has.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use rtnetlink::packet_route::{
    AddressFamily,
    link::{
        InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
        LinkMessage, VlanProtocol,
    },
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteMessage, RouteType},
};
use tokio::time::Instant;

use super::{
    NextHop, Resolution, Why,
    kicks::Kicks,
    links::Links,
    neighbours::{Key, Neighbours},
    resolve::resolve,
    routes::{self, Path},
};

const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn link(index: u32, mtu: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.link_layer_type = LinkLayerType::Ether;
    link.header.flags = LinkFlags::Up | LinkFlags::Running;
    link.attributes = vec![
        LinkAttribute::IfName(format!("eth{index}")),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::Address(vec![2, 0, 0, 0, 1, index as u8]),
    ];
    link
}

fn vlan(index: u32, parent: u32, id: u16, protocol: VlanProtocol) -> LinkMessage {
    let mut link = link(index, 1496);
    let data = vec![InfoVlan::Protocol(protocol), InfoVlan::Id(id)];
    link.attributes.extend([
        LinkAttribute::Link(parent),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(InfoData::Vlan(data)),
        ]),
    ]);
    link
}

fn neighbour(ifindex: u32, state: NeighbourState, mac: [u8; 6]) -> NeighbourMessage {
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.ifindex = ifindex;
    neighbour.header.state = state;
    neighbour.attributes = vec![
        NeighbourAttribute::Destination(TARGET.into()),
        NeighbourAttribute::LinkLayerAddress(mac.into()),
    ];
    neighbour
}

fn key(ifindex: u32) -> Key {
    Key {
        ifindex,
        address: TARGET,
    }
}

/// Resolves [`TARGET`], on link at an interface where it is known as [`MAC`].
fn by(ifindex: u32, links: impl IntoIterator<Item = LinkMessage>) -> Resolution {
    let path = Path {
        ifindex,
        gateway: None,
        mtu: None,
        encapsulated: false,
    };
    let neighbours = [neighbour(ifindex, NeighbourState::Reachable, MAC)];
    resolve(
        TARGET,
        &Ok(path),
        &links.into_iter().collect(),
        &neighbours.into_iter().collect(),
        &mut HashSet::new(),
    )
}

#[test]
fn vlan_devices_send_through_their_parent() {
    let links = [link(1, 1500), vlan(2, 1, 42, VlanProtocol::Ieee8021Q)];
    let expected = NextHop {
        ifindex: 1,
        source_mac: [2, 0, 0, 0, 1, 2],
        destination_mac: MAC,
        vlan: Some(42),
        mtu: 1496,
        on_link: true,
    };
    assert_eq!(by(2, links), Resolution::Resolved(expected));
}

#[test]
fn other_tags_are_refused() {
    let encapsulated = |interface: &str| {
        let interface = interface.into();
        Resolution::Unresolved(Why::Encapsulated { interface })
    };
    let provider = vlan(2, 1, 42, VlanProtocol::Ieee8021Ad);
    let stacked = vlan(3, 2, 43, VlanProtocol::Ieee8021Q);
    let plain = vlan(2, 1, 42, VlanProtocol::Ieee8021Q);
    let mut elsewhere = plain.clone();
    elsewhere.attributes.push(LinkAttribute::LinkNetNsId(1));
    assert_eq!(by(2, [link(1, 1500), provider]), encapsulated("eth2"));
    assert_eq!(by(2, [link(1, 1500), elsewhere]), encapsulated("eth2"));
    assert_eq!(by(3, [link(1, 1500), plain, stacked]), encapsulated("eth3"));
}

#[test]
fn links_that_cannot_send() {
    let mut parent = link(1, 1500);
    parent.header.flags = LinkFlags::Up;
    let vlan = vlan(2, 1, 42, VlanProtocol::Ieee8021Q);
    let down = |interface: &str| {
        let interface = interface.into();
        Resolution::Unresolved(Why::LinkDown { interface })
    };
    assert_eq!(by(1, [parent.clone()]), down("eth1"));
    assert_eq!(by(2, [parent, vlan.clone()]), down("eth1"));
    assert_eq!(by(2, [vlan]), down("#1"));

    let mut tunnel = link(1, 1500);
    tunnel.header.link_layer_type = LinkLayerType::Tunnel;
    let interface = "eth1".into();
    let why = Why::NotEthernet { interface };
    assert_eq!(by(1, [tunnel]), Resolution::Unresolved(why));
}

#[test]
fn partial_link_messages_change_nothing() {
    let mut links = Links::default();
    assert!(links.set(&link(1, 1500)));
    assert!(!links.set(&link(1, 1500)));
    let mut port = link(1, 9000);
    port.header.interface_family = AddressFamily::Bridge;
    assert!(!links.set(&port));
    assert!(!links.remove(&port));
    assert!(links.set(&link(1, 9000)));
    assert!(links.remove(&link(1, 9000)));
}

#[test]
fn only_usable_mac_addresses_count() {
    let mut neighbours = Neighbours::default();
    assert!(!neighbours.set(&neighbour(1, NeighbourState::Incomplete, [0; 6])));
    assert!(!neighbours.set(&neighbour(1, NeighbourState::Permanent, [0; 6])));
    assert!(!neighbours.set(&neighbour(1, NeighbourState::Noarp, [0x33; 6])));
    assert!(neighbours.set(&neighbour(1, NeighbourState::Reachable, MAC)));
    assert!(!neighbours.set(&neighbour(1, NeighbourState::Stale, MAC)));
    assert_eq!(neighbours.usable(&key(1)), Some(MAC));
    assert!(neighbours.set(&neighbour(1, NeighbourState::Failed, MAC)));
    assert_eq!(neighbours.usable(&key(1)), None);
}

#[test]
fn garbage_collection_takes_no_needed_neighbour() {
    let gone = neighbour(1, NeighbourState::Reachable, MAC);
    let mut neighbours = Neighbours::from_iter([gone.clone()]);
    assert!(!neighbours.remove(&gone, |_| true));
    assert_eq!(neighbours.usable(&key(1)), Some(MAC));
    assert!(neighbours.wants_kick(&key(1)));
    assert!(neighbours.remove(&gone, |_| false));
    assert_eq!(neighbours.usable(&key(1)), None);
}

#[test]
fn kicks_slow_down_until_the_neighbour_answers() {
    let mut neighbours = Neighbours::default();
    let mut kicks = Kicks::default();
    let start = Instant::now();
    kicks.need(HashSet::from([key(1)]), start);
    let mut kicked_at = |neighbours: &Neighbours, seconds: std::ops::Range<u64>| {
        seconds
            .filter(|second| {
                let now = start + Duration::from_secs(*second);
                !kicks.due(now, neighbours).is_empty()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        kicked_at(&neighbours, 0..100),
        [0, 1, 3, 7, 15, 31, 61, 91],
        "a growing pause"
    );
    neighbours.set(&neighbour(1, NeighbourState::Reachable, MAC));
    assert!(kicked_at(&neighbours, 100..200).is_empty());
    neighbours.set(&neighbour(1, NeighbourState::Stale, MAC));
    assert_eq!(kicked_at(&neighbours, 200..203), [200, 201], "at once");
}

#[test]
fn a_route_concerns_the_addresses_of_its_prefix() {
    let route = |destination: Option<&str>, length, family| {
        let mut route = RouteMessage::default();
        route.header.address_family = family;
        route.header.destination_prefix_length = length;
        let destination = destination.map(|d| d.parse::<IpAddr>().unwrap());
        let attribute = destination.map(|d| RouteAttribute::Destination(d.into()));
        route.attributes.extend(attribute);
        let covered = routes::covered(&route);
        format!("{} {}", covered.start(), covered.end())
    };
    let v4 = |destination, length| route(destination, length, AddressFamily::Inet);
    let v6 = |destination, length| route(destination, length, AddressFamily::Inet6);
    assert_eq!(v4(None, 0), "0.0.0.0 255.255.255.255");
    assert_eq!(v4(Some("192.0.2.0"), 24), "192.0.2.0 192.0.2.255");
    assert_eq!(v4(Some("192.0.2.1"), 32), "192.0.2.1 192.0.2.1");
    let all = ":: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    assert_eq!(v6(None, 0), all);
    let half = "2001:db8:: 2001:db8::ffff:ffff:ffff:ffff";
    assert_eq!(v6(Some("2001:db8::"), 64), half);
    assert_eq!(v6(Some("2001:db8::1"), 128), "2001:db8::1 2001:db8::1");
}

#[test]
fn answers_without_a_way() {
    let answer = |kind| {
        let mut route = RouteMessage::default();
        route.header.kind = kind;
        routes::answer(&route).unwrap_err()
    };
    assert_eq!(answer(RouteType::Local), Why::Local);
    assert_eq!(answer(RouteType::Broadcast), Why::NotUnicast);
    assert_eq!(answer(RouteType::BlackHole), Why::Blackhole);
    assert!(matches!(answer(RouteType::Unicast), Why::NoRoute(_)));
}
