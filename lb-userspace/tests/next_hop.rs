//! The next-hop resolver against the kernel: two network namespaces joined by a veth pair.
//!
//! Needs root and `ip` of iproute2.

#[path = "next_hop/net.rs"]
mod net;

use std::{collections::BTreeSet, net::IpAddr};

use lb_userspace::next_hop::{self, NextHop, Resolution, Why};
use tokio::{sync::mpsc, time::timeout};

use net::{Net, OWN_MAC, PATIENCE, PEER_MAC, Table, addresses};

#[test]
fn neighbours_on_link() {
    let net = Net::new();
    net.run(&["192.0.2.2", "2001:db8::2"], async |probe| {
        let expected = NextHop {
            ifindex: net.ifindex(),
            source_mac: OWN_MAC,
            destination_mac: PEER_MAC,
            vlan: None,
            mtu: 1500,
            on_link: true,
        };
        assert_eq!(probe.resolved("192.0.2.2").await, expected);
        assert_eq!(probe.resolved("2001:db8::2").await, expected);
    });
}

#[test]
fn targets_behind_a_gateway() {
    let net = Net::new();
    net.own("route add 198.51.100.0/24 via 192.0.2.2 mtu 1400");
    net.own("route add 203.0.113.0/24 via inet6 2001:db8::2");
    net.own("route add 2001:db8:1::/48 via 2001:db8::2");
    let targets = ["198.51.100.7", "203.0.113.7", "2001:db8:1::7"];
    net.run(&targets, async |probe| {
        for (target, mtu) in targets.into_iter().zip([1400, 1500, 1500]) {
            let next_hop = probe.resolved(target).await;
            assert_eq!(next_hop.destination_mac, PEER_MAC, "{target}");
            assert_eq!(next_hop.mtu, mtu, "{target}");
            assert!(!next_hop.on_link, "{target}");
        }
    });
}

#[test]
fn a_mac_address_changed_in_silence_is_noticed() {
    let net = Net::new();
    for version in ["ipv4", "ipv6"] {
        net.set(&format!("{version}.neigh.wire.base_reachable_time_ms"), 500);
        net.set(&format!("{version}.neigh.wire.delay_first_probe_time"), 1);
        net.set(&format!("{version}.neigh.wire.retrans_time_ms"), 100);
    }
    let targets = ["192.0.2.2", "2001:db8::2"];
    net.run(&targets, async |probe| {
        for target in targets {
            assert_eq!(probe.resolved(target).await.destination_mac, PEER_MAC);
        }
        net.peer("link set wire address 02:00:00:00:00:99");
        for target in targets {
            probe
                .wait_until(target, |resolution| {
                    matches!(resolution, Resolution::Resolved(next_hop)
                        if next_hop.destination_mac == [2, 0, 0, 0, 0, 0x99])
                })
                .await;
        }
    });
}

#[test]
fn routes_come_and_go() {
    let net = Net::new();
    let targets = ["198.51.100.7", "2001:db8:1::7"];
    net.run(&targets, async |probe| {
        for _ in 0..2 {
            for target in targets {
                assert!(matches!(probe.unresolved(target).await, Why::NoRoute(_)));
            }
            net.own("route add 198.51.100.0/24 via 192.0.2.2");
            net.own("route add 2001:db8:1::/48 via 2001:db8::2");
            for target in targets {
                probe.resolved(target).await;
            }
            net.own("route delete 198.51.100.0/24");
            net.own("route delete 2001:db8:1::/48");
        }
    });
}

#[test]
fn a_rule_leads_elsewhere() {
    let net = Net::new();
    net.own("route add 198.51.100.0/24 via 192.0.2.2");
    net.run(&["198.51.100.7"], async |probe| {
        probe.resolved("198.51.100.7").await;
        net.own("rule add to 198.51.100.7 prohibit");
        assert_eq!(probe.unresolved("198.51.100.7").await, Why::Prohibited);
        net.own("rule delete to 198.51.100.7 prohibit");
        probe.resolved("198.51.100.7").await;
    });
}

#[test]
fn routes_that_reject() {
    let net = Net::new();
    let kinds = [
        ("blackhole", Why::Blackhole),
        ("unreachable", Why::Unreachable),
        ("prohibit", Why::Prohibited),
    ];
    let targets = ["198.51.100.7", "2001:db8:1::7"];
    net.run(&targets, async |probe| {
        for (kind, why) in kinds {
            for target in targets {
                net.own(&format!("route add {kind} {target}"));
                let expected = Resolution::Unresolved(why.clone());
                probe.wait_until(target, |found| *found == expected).await;
                net.own(&format!("route delete {kind} {target}"));
            }
        }
    });
}

#[test]
fn the_link_goes_down_and_up() {
    let net = Net::new();
    net.run(&["192.0.2.2"], async |probe| {
        probe.resolved("192.0.2.2").await;
        // Loses the carrier only: the routes stay.
        net.peer("link set wire down");
        let down = Why::LinkDown {
            interface: "wire".into(),
        };
        assert_eq!(probe.unresolved("192.0.2.2").await, down);
        net.peer("link set wire up");
        probe.resolved("192.0.2.2").await;
        net.own("link set wire down");
        probe.unresolved("192.0.2.2").await;
        net.own("link set wire up");
        probe.resolved("192.0.2.2").await;
        net.own("link delete wire");
        probe.unresolved("192.0.2.2").await;
    });
}

#[test]
fn own_addresses_are_local() {
    let net = Net::new();
    let targets = ["192.0.2.1", "2001:db8::1", "127.0.0.9"];
    net.run(&targets, async |probe| {
        for target in targets {
            assert_eq!(probe.unresolved(target).await, Why::Local, "{target}");
        }
        probe.want(addresses(&["192.0.2.9", "192.0.2.255"]));
        let why = probe.unresolved("192.0.2.255").await;
        assert_eq!(why, Why::NotUnicast);
        let nobody = Why::NoNeighbour {
            gateway: "192.0.2.9".parse().unwrap(),
            interface: "wire".into(),
        };
        assert_eq!(probe.unresolved("192.0.2.9").await, nobody);
        net.own("address add 192.0.2.9/24 dev wire");
        let local = Resolution::Unresolved(Why::Local);
        probe.wait_until("192.0.2.9", |found| *found == local).await;
    });
}

#[test]
fn a_backend_that_comes_late_is_found() {
    let net = Net::new();
    net.run(&["192.0.2.3"], async |probe| {
        let why = probe.unresolved("192.0.2.3").await;
        assert!(matches!(why, Why::NoNeighbour { .. }), "{why}");
        // The kernel itself has given up by then.
        net.neighbour_is("192.0.2.3", "FAILED").await;
        net.peer("address add 192.0.2.3/24 dev wire");
        let next_hop = probe.resolved("192.0.2.3").await;
        assert_eq!(next_hop.destination_mac, PEER_MAC);
    });
}

#[test]
fn a_neighbour_that_is_no_target_is_resolved_on_request() {
    let net = Net::new();
    net.run(&[], async |probe| {
        let ifindex = net.ifindex();
        for address in ["192.0.2.2", "2001:db8::2"] {
            assert_eq!(net.own(&format!("neighbour show {address}")), "");
            for _ in 0..10_000 {
                probe.asker.request(address.parse().unwrap(), ifindex);
            }
            net.neighbour_is(address, "02:00:00:00:00:02").await;
        }
    });
}

#[test]
fn permanent_neighbours_stay_permanent() {
    let net = Net::new();
    net.own("neighbour add 192.0.2.7 lladdr 02:00:00:00:00:77 dev wire nud permanent");
    net.own("neighbour add 192.0.2.8 lladdr 03:00:00:00:00:77 dev wire nud permanent");
    net.run(&["192.0.2.7", "192.0.2.8"], async |probe| {
        let next_hop = probe.resolved("192.0.2.7").await;
        assert_eq!(next_hop.destination_mac, [2, 0, 0, 0, 0, 0x77]);
        // A multicast MAC address is no next hop.
        let why = probe.unresolved("192.0.2.8").await;
        assert!(matches!(why, Why::NoNeighbour { .. }), "{why}");
        let ifindex = net.ifindex();
        let request = |address: &str| {
            let address = address.parse().unwrap();
            probe.asker.request(address, ifindex);
        };
        request("192.0.2.7");
        request("192.0.2.2");
        net.neighbour_is("192.0.2.2", "REACHABLE").await;
        for address in ["192.0.2.7", "192.0.2.8"] {
            let entry = net.own(&format!("neighbour show {address}"));
            assert!(entry.contains("PERMANENT"), "{entry}");
        }
    });
}

#[test]
fn the_epoch_grows_on_any_route_change() {
    let net = Net::new();
    net.run(&["192.0.2.2"], async |probe| {
        probe.resolved("192.0.2.2").await;
        let before = probe.quiet().await;
        net.own("route add 203.0.113.0/24 via 192.0.2.2");
        let after = probe.wait_for(|table| table.epoch != before.epoch).await;
        assert_eq!(after.epoch, before.epoch + 1);
        assert_eq!(after.next_hops, before.next_hops);
        // What changes nothing in the kernel leaves the epoch alone.
        probe.want(BTreeSet::new());
        let after = probe.wait_for(|table| table.next_hops.is_empty()).await;
        assert_eq!(after.epoch, before.epoch + 1);
    });
}

#[test]
fn many_targets() {
    let net = Net::new();
    net.own("route add 10.0.0.0/8 via 192.0.2.2");
    net.run(&[], async |probe| {
        let targets: BTreeSet<IpAddr> = (0..20_000_u32)
            .map(|n| IpAddr::V4((0x0a00_0001 + n).into()))
            .collect();
        probe.want(targets);
        let all_resolved = |table: &Table| {
            let resolved = |next_hop: &_| matches!(next_hop, Resolution::Resolved(_));
            table.next_hops.len() == 20_000 && table.next_hops.values().all(resolved)
        };
        probe.wait_for(all_resolved).await;
        net.own("route delete 10.0.0.0/8");
        probe.wait_for(|table| !all_resolved(table)).await;
        net.own("route add 10.0.0.0/8 via 192.0.2.2");
        probe.wait_for(all_resolved).await;
    });
}

#[test]
fn ends_when_nobody_listens() {
    let net = Net::new();
    net.run(&["198.51.100.7"], async |probe| {
        let (wanted, receiver) = mpsc::unbounded_channel();
        drop(next_hop::spawn(receiver).unwrap());
        assert!(timeout(PATIENCE, wanted.closed()).await.is_ok());
        // Targets that can no longer change are still followed.
        probe.wanted = wanted;
        probe.unresolved("198.51.100.7").await;
        net.own("route add 198.51.100.0/24 via 192.0.2.2");
        probe.resolved("198.51.100.7").await;
    });
}
