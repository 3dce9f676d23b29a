//! What needs no kernel, or devices that not every kernel has.

use std::{
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
    targets::Targets,
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
    let (links, neighbours) = (
        links.into_iter().collect(),
        neighbours.into_iter().collect(),
    );
    resolve(TARGET, &Ok(path), &links, &neighbours).1
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
    let mut changes = |state, mac| {
        let set = neighbours.set(&neighbour(1, state, mac));
        (set.unwrap().1, neighbours.usable(&key(1)))
    };
    assert_eq!(changes(NeighbourState::Incomplete, [0; 6]), (false, None));
    assert_eq!(changes(NeighbourState::Permanent, [0; 6]), (false, None));
    assert_eq!(changes(NeighbourState::Noarp, [0x33; 6]), (false, None));
    assert_eq!(changes(NeighbourState::Reachable, MAC), (true, Some(MAC)));
    assert_eq!(changes(NeighbourState::Stale, MAC), (false, Some(MAC)));
    assert_eq!(changes(NeighbourState::Failed, MAC), (true, None));
}

#[test]
fn garbage_collection_takes_no_needed_neighbour() {
    let gone = neighbour(1, NeighbourState::Reachable, MAC);
    let mut neighbours = Neighbours::from_iter([gone.clone()]);
    assert_eq!(neighbours.remove(&gone, |_| true), Some((key(1), false)));
    assert_eq!(neighbours.usable(&key(1)), Some(MAC));
    assert!(neighbours.wants_kick(&key(1)));
    assert_eq!(
        neighbours.replace(Neighbours::default(), |_| true),
        [(key(1), false)],
        "reading all again takes none either"
    );
    assert_eq!(neighbours.usable(&key(1)), Some(MAC));
    assert_eq!(neighbours.remove(&gone, |_| false), Some((key(1), true)));
    assert_eq!(neighbours.usable(&key(1)), None);
}

#[test]
fn reading_all_neighbours_tells_what_is_another() {
    let reachable = |ifindex, mac| neighbour(ifindex, NeighbourState::Reachable, mac);
    let mut neighbours = Neighbours::from_iter([
        reachable(1, MAC),
        reachable(2, MAC),
        reachable(3, MAC),
        reachable(4, MAC),
    ]);
    let new = Neighbours::from_iter([
        reachable(1, MAC),
        reachable(2, [2, 0, 0, 0, 0, 9]),
        neighbour(3, NeighbourState::Stale, MAC),
        reachable(5, MAC),
    ]);
    let mut changed = neighbours.replace(new, |_| false);
    changed.sort();
    let expected = [
        (key(2), true),
        (key(3), false),
        (key(4), true),
        (key(5), true),
    ];
    assert_eq!(changed, expected);
}

#[test]
fn kicks_slow_down_until_the_neighbour_answers() {
    let mut kicks = Kicks::default();
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    kicks.set(key(1), true, start);
    let kicked_at = |kicks: &mut Kicks, seconds: std::ops::Range<u64>| {
        seconds
            .filter(|second| !kicks.due(at(*second)).is_empty())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        kicked_at(&mut kicks, 0..46),
        [0, 1, 3, 7, 15, 25, 35, 45],
        "a growing pause"
    );
    kicks.set(key(1), true, at(46));
    assert!(kicked_at(&mut kicks, 46..50).is_empty(), "no news");
    kicks.set(key(1), false, at(50));
    assert!(kicked_at(&mut kicks, 50..200).is_empty());
    kicks.set(key(1), true, at(200));
    assert_eq!(kicked_at(&mut kicks, 200..203), [200, 201], "at once");
}

/// A pass looks at what a notification names, however many targets there are.
#[test]
fn a_pass_costs_what_has_changed() {
    const ALL: u32 = 20_000;
    let address = |number: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number));
    let on_link = |address| Key {
        ifindex: 1,
        address,
    };
    let route = |mtu| {
        Ok(Path {
            ifindex: 1,
            gateway: None,
            mtu,
            encapsulated: false,
        })
    };
    let links = Links::from_iter([link(1, 1500)]);
    let mut neighbours = Neighbours::default();
    let mut targets = Targets::default();
    (0..ALL).for_each(|number| targets.add(address(number)));
    assert_eq!(targets.unknown().len(), ALL as usize);
    for number in 0..ALL {
        assert!(targets.found(address(number), route(None)));
    }
    let first = targets.resolve(&links, &neighbours);
    assert_eq!((first.told.len(), first.moved), (ALL as usize, false));
    assert_eq!(first.needed.len(), ALL as usize);
    assert_eq!(targets.work(), 0);

    // A neighbour answers.
    let mut answers = neighbour(1, NeighbourState::Reachable, MAC);
    answers.attributes[0] = NeighbourAttribute::Destination(match address(7) {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => address.into(),
    });
    assert_eq!(neighbours.set(&answers), Some((on_link(address(7)), true)));
    targets.neighbour_changed(&on_link(address(7)));
    assert_eq!(targets.work(), 1);
    let told = targets.resolve(&links, &neighbours);
    assert!(told.moved && told.needed.is_empty() && told.unneeded.is_empty());
    assert!(matches!(
        told.told.as_slice(),
        [(at, Some(Resolution::Resolved(_)))] if *at == address(7)
    ));

    // A route of eight addresses comes, by which nothing is otherwise, or one is.
    targets.forget_routes(address(0)..=address(7));
    assert_eq!(targets.work(), 8);
    for number in 0..8 {
        let mtu = (number == 7).then_some(1400);
        assert_eq!(targets.found(address(number), route(mtu)), number == 7);
    }
    assert_eq!(targets.work(), 1);
    assert_eq!(targets.resolve(&links, &neighbours).told.len(), 1);

    // One goes, one goes and comes back, one comes.
    targets.remove(address(7));
    targets.remove(address(8));
    targets.add(address(8));
    targets.add(address(ALL));
    assert_eq!(targets.unknown(), [address(8), address(ALL)]);
    assert_eq!(targets.work(), 3);
    for new in [address(8), address(ALL)] {
        targets.found(new, route(None));
    }
    let outcome = targets.resolve(&links, &neighbours);
    assert_eq!(outcome.unneeded, [on_link(address(7))]);
    assert_eq!(outcome.needed, [on_link(address(ALL))]);
    let told: Vec<_> = outcome
        .told
        .iter()
        .map(|(at, is)| (*at, is.is_some()))
        .collect();
    assert_eq!(told, [(address(7), false), (address(ALL), true)]);
}

/// Routes are looked up again in turn, a few at a time.
#[test]
fn every_route_is_checked_in_turn() {
    let address = |number: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number));
    let mut targets = Targets::default();
    assert!(targets.check(30, 1000).is_empty());
    (0..95).for_each(|number| targets.add(address(number)));
    let rounds: Vec<_> = (0..30).map(|_| targets.check(30, 1000)).collect();
    assert!(rounds.iter().all(|round| round.len() <= 4));
    let all: Vec<_> = rounds.concat().into_iter().take(95).collect();
    assert_eq!(all, (0..95).map(address).collect::<Vec<_>>());
    assert_eq!(targets.check(1, 10).len(), 10);
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
