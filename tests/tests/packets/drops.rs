//! A packet for every reason to drop one, but for those that have a file of their own.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use etherparse::IpNumber;
use lb_common::{abi::program, reason::Reason};
use lb_userspace::desired::{Desired, Mode, Protocol};
use weir_tests::wire::{
    CLIENT, Case, Host, LB_BACKEND_MAC, Map, NOWHERE, OUTSIDE, Packet, ROUTED, Side, UNREACHABLE,
    VIP, Verdict, World, backend, client, went_out,
};

use crate::scene::{
    CLIENT_PORT, Kind, alone, change_next_hops, empty, everything, forget_next_hops, kinds,
};

fn dropped(kind: Kind, what: &str, side: Side, packet: Packet, reason: Reason) -> Case {
    Case {
        what: format!("{}: {what}", kind.name()),
        side,
        packet,
        verdict: Verdict::Drop(reason),
        service: kind.name(),
    }
}

/// The same, before anybody knows the service.
fn unmatched(what: &str, packet: Packet, reason: Reason) -> Case {
    Case {
        what: what.to_owned(),
        side: Side::Client,
        packet,
        verdict: Verdict::Drop(reason),
        service: String::new(),
    }
}

/// Where a backend is.
type Place = fn(Kind) -> SocketAddr;

/// A service of each kind whose only backend has this address.
fn all_at(address: impl Fn(Kind) -> SocketAddr) -> Desired {
    let mut desired = empty();
    kinds().for_each(|kind| kind.add(&mut desired, &[address(kind)]));
    desired
}

#[test]
fn fragments_and_extension_headers_to_a_vip() -> Result<()> {
    // Without the first, which has the ports.
    let fragments = [("middle", (100, true)), ("last", (185, false))];
    World::with(everything(), |world| {
        for kind in kinds() {
            for (what, (offset, more)) in fragments {
                let packet = kind.request().fragment(offset, more);
                let what = format!("{}: {what} fragment", kind.name());
                unmatched(&what, packet.clone(), Reason::Fragment).check(world)?;
                // To any port of the VIP, and to no other address.
                let other = packet
                    .clone()
                    .between(kind.client(), VIP.at(kind.family, 1));
                unmatched(&what, other, Reason::Fragment).check(world)?;
                passes(
                    &what,
                    packet.between(kind.client(), client(9).at(kind.family, 81)),
                )
                .check(world)?;
            }
        }
        for number in [
            IpNumber::IPV6_HEADER_HOP_BY_HOP,
            IpNumber::IPV6_DESTINATION_OPTIONS,
        ] {
            for kind in kinds().filter(|kind| kind.family == 6) {
                let packet = kind.request().extension(number);
                let what = format!("{}: {number:?}", kind.name());
                unmatched(&what, packet.clone(), Reason::ExtensionHeader).check(world)?;
                passes(&what, packet.between(kind.client(), client(9).at(6, 81))).check(world)?;
            }
        }
        Ok(())
    })
}

fn passes(what: &str, packet: Packet) -> Case {
    Case {
        what: what.to_owned(),
        side: Side::Client,
        packet,
        verdict: Verdict::Pass,
        service: String::new(),
    }
}

#[test]
fn no_way_to_the_backend() -> Result<()> {
    let places: [(&str, Place, Reason); 4] = [
        (
            "no route",
            |kind| NOWHERE.at(kind.family, 8080),
            Reason::NoRoute,
        ),
        (
            "unreachable",
            |kind| UNREACHABLE.at(kind.family, 8080),
            Reason::NoRoute,
        ),
        (
            "on the link, but not there",
            |kind| backend(99).at(kind.family, 8080),
            Reason::NoNeighbour,
        ),
        (
            "at a NIC that Weir was not given",
            |kind| OUTSIDE.at(kind.family, 8080),
            Reason::EgressUnknown,
        ),
    ];
    World::with(empty(), |world| {
        for ((what, place, reason), port) in places.into_iter().zip(CLIENT_PORT..) {
            world.apply(|desired| *desired = all_at(place))?;
            for kind in kinds() {
                // Another flow each time: those that are known stay where they are.
                let from = CLIENT.at(kind.family, port);
                let packet = kind.request().opening().between(from, kind.vip());
                dropped(kind, what, Side::Client, packet, reason).check(world)?;
            }
        }
        Ok(())
    })
}

#[test]
fn no_way_back_to_the_client() -> Result<()> {
    World::with(everything(), |world| {
        for kind in kinds().filter(|kind| kind.mode == Mode::Nat) {
            let to = |host: Host| {
                let client = host.at(kind.family, CLIENT_PORT);
                kind.answer().between(kind.backend(), client)
            };
            let (what, packet) = ("unreachable", to(UNREACHABLE));
            dropped(kind, what, Side::Backend, packet, Reason::NoRoute).check(world)?;
            let (what, packet) = ("at a NIC that Weir was not given", to(OUTSIDE));
            dropped(kind, what, Side::Backend, packet, Reason::EgressUnknown).check(world)?;
            // Whom the kernel has no route to may be itself.
            passes("no route", to(NOWHERE)).check(world)?;
        }
        Ok(())
    })
}

/// The gateway would send what is for the VIP straight back.
#[test]
fn dsr_through_a_gateway() -> Result<()> {
    World::with(all_at(|kind| ROUTED.at(kind.family, 8080)), |world| {
        world.resolved()?;
        for known in [true, false] {
            if !known {
                forget_next_hops(world)?;
            }
            for kind in kinds() {
                let packet = kind.request().opening();
                if kind.mode == Mode::Dsr {
                    let what = format!("by the agent's next hops: {known}");
                    dropped(kind, &what, Side::Client, packet, Reason::NotOnLink).check(world)?;
                    continue;
                }
                let out = packet
                    .clone()
                    .macs(LB_BACKEND_MAC, backend(1).mac())
                    .between(kind.source(), ROUTED.at(kind.family, 8080))
                    .ttl(63);
                Case {
                    what: format!("{}: through a gateway", kind.name()),
                    side: Side::Client,
                    packet,
                    verdict: Verdict::Redirect(out),
                    service: kind.name(),
                }
                .check(world)?;
            }
        }
        Ok(())
    })
}

#[test]
fn more_than_the_mtu() -> Result<()> {
    World::with(everything(), |world| {
        world.resolved()?;
        for known in [true, false] {
            if !known {
                forget_next_hops(world)?;
            }
            for kind in kinds() {
                // What fits into 1,500 bytes from the IP header on.
                let first = kind.request().opening();
                let fits = 1500 - (first.clone().carrying(0).bytes().len() - 14);
                for vlan in [None, Some(7)] {
                    let packet = kind.request().opening().vlan(vlan).carrying(fits);
                    let out = kind.forwarded(packet.clone()).vlan(None);
                    Case {
                        what: format!("{}: as much as fits", kind.name()),
                        side: Side::Client,
                        packet: packet.clone(),
                        verdict: Verdict::Redirect(out),
                        service: kind.name(),
                    }
                    .check(world)?;
                    let packet = packet.carrying(fits + 1);
                    dropped(kind, "a byte more", Side::Client, packet, Reason::TooBig)
                        .check(world)?;
                }
                if kind.mode != Mode::Dsr {
                    let packet = kind.answer().carrying(fits + 1);
                    dropped(kind, "an answer", Side::Backend, packet, Reason::TooBig)
                        .check(world)?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn full_nat_runs_out() -> Result<()> {
    let full_nat = |kind: &Kind| kind.mode == Mode::FullNat;
    let other_client = |kind: Kind| CLIENT.at(kind.family, CLIENT_PORT + 1);
    World::with(everything(), |world| {
        for kind in kinds().filter(full_nat) {
            open(world, kind, kind.request())?;
            let second = kind
                .request()
                .opening()
                .between(other_client(kind), kind.vip());
            let what = "the only port is taken";
            dropped(kind, what, Side::Client, second, Reason::PortsExhausted).check(world)?;
        }
        Ok(())
    })?;
    // Room for one flow.
    let mut desired = everything();
    desired.source_ports = (1024, 65535);
    World::with_room_for(1, desired, |world| {
        let kind = Kind::new(Mode::FullNat, Protocol::Tcp, 4);
        open(world, kind, kind.request())?;
        for kind in kinds().filter(full_nat) {
            let second = kind
                .request()
                .opening()
                .between(other_client(kind), kind.vip());
            let what = "the only place is taken";
            dropped(kind, what, Side::Client, second, Reason::FlowTableFull).check(world)?;
        }
        Ok(())
    })
}

fn open(world: &World, kind: Kind, request: Packet) -> Result<()> {
    let ran = world.feed(Side::Client, &request.opening().bytes())?;
    ensure!(went_out(ran.action), "{}: {}", kind.name(), ran.action);
    Ok(())
}

/// Metadata that another program has put before the packet leaves no room for a tag.
#[test]
fn no_room_for_a_tag() -> Result<()> {
    let kind = Kind::new(Mode::Nat, Protocol::Tcp, 4);
    World::with(alone(kind, &[1]), |world| {
        world.resolved()?;
        change_next_hops(world, |hop| hop.destination |= 7 << 48)?;
        // What the kernel leaves of 256 bytes beside its own 40.
        const METADATA: usize = 216;
        let data = [vec![0; METADATA], kind.request().bytes()].concat();
        let ran = world.feed_behind(Side::Client, &data, METADATA)?;
        ensure!(!went_out(ran.action), "action {}", ran.action);
        let counters = world.dataplane.counters()?;
        let drops = &counters.services[&kind.name()].drops;
        ensure!(drops.get(Reason::Resize.name()) == Some(&1), "{drops:?}");
        Ok(())
    })
}

/// Only what no agent does: the program to hand the packet on to is not there.
#[test]
fn maps_that_contradict_each_other() -> Result<()> {
    World::with(everything(), |world| {
        Map::open(&world.dataplane, "PROGRAMS")?.clear_program(program::OPEN)?;
        for kind in kinds().filter(|kind| kind.mode == Mode::FullNat) {
            let what = format!("{}: nobody to open it", kind.name());
            unmatched(&what, kind.request().opening(), Reason::Inconsistent).check(world)?;
        }
        Ok(())
    })
}

#[test]
fn forwarding_that_the_kernel_forbids() -> Result<()> {
    World::with(everything(), |world| {
        world.resolved()?;
        forget_next_hops(world)?;
        for family in ["ipv4", "ipv6"] {
            std::fs::write(
                format!("/proc/sys/net/{family}/conf/client/forwarding"),
                "0",
            )?;
        }
        for kind in kinds() {
            let packet = kind.request().opening();
            let what = "by the kernel's routes";
            dropped(kind, what, Side::Client, packet, Reason::ForwardingDisabled).check(world)?;
        }
        Ok(())
    })
}

#[test]
fn the_tests_know_every_reason() {
    use Reason::*;
    // Each has a packet in this folder. A new one is to have one too.
    let provoked = [
        Malformed,
        Fragment,
        ExtensionHeader,
        NoBackend,
        TtlExceeded,
        NoRoute,
        NoNeighbour,
        EgressUnknown,
        TooBig,
        UnknownFlow,
        PortsExhausted,
        FlowTableFull,
        Resize,
        ForwardingDisabled,
        Inconsistent,
        NotOnLink,
        BackendDead,
    ];
    assert_eq!(provoked.as_slice(), Reason::ALL);
}
