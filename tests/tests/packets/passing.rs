//! What is not for a service goes on to the kernel, byte for byte.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv6Type, PacketBuilder};
use lb_userspace::desired::{Mode, Protocol};
use weir_tests::wire::{
    CLIENT, CLIENT_MAC, FAMILIES, LB_CLIENT_MAC, Side, VIP, World, backend, client, same, tcp, udp,
};

use crate::scene::{CLIENT_PORT, everything, kinds};

const XDP_PASS: u32 = 2;

/// In words, and the frame.
type Frame = (String, Vec<u8>);

/// All but IP.
fn below_ip() -> Vec<Frame> {
    let arp = |operation, target: [u8; 4]| {
        let packet = ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            operation,
            &CLIENT_MAC,
            &CLIENT.v4.octets(),
            &[0; 6],
            &target,
        );
        let ethernet = PacketBuilder::ethernet2(CLIENT_MAC, [0xff; 6]);
        let mut frame = Vec::new();
        let written = ethernet
            .arp(packet.expect("addresses of one size"))
            .write(&mut frame);
        written.expect("the packet can be built");
        frame
    };
    let mut nested = tcp(CLIENT.at(4, CLIENT_PORT), VIP.at(4, 81))
        .vlan(7)
        .bytes();
    // Another tag before the tag.
    nested.splice(12..12, [0x88, 0xa8, 0, 8]);
    let unknown = [&LB_CLIENT_MAC[..], &CLIENT_MAC, &[0x88, 0xcc], &[0; 46]].concat();
    vec![
        (
            "ARP for the VIP".to_owned(),
            arp(ArpOperation::REQUEST, VIP.v4.octets()),
        ),
        (
            "an ARP reply".to_owned(),
            arp(ArpOperation::REPLY, [198, 18, 0, 1]),
        ),
        ("two tags".to_owned(), nested),
        ("LLDP".to_owned(), unknown),
    ]
}

/// ICMP, to the VIP too.
fn icmp() -> Vec<Frame> {
    let mut frames = Vec::new();
    let ethernet = || PacketBuilder::ethernet2(CLIENT_MAC, LB_CLIENT_MAC);
    for (what, to) in [
        ("the VIP", VIP),
        ("another", client(9)),
        ("a backend", backend(1)),
    ] {
        let mut frame = Vec::new();
        let ip = ethernet().ipv4(CLIENT.v4.octets(), to.v4.octets(), 64);
        ip.icmpv4_echo_request(1, 2)
            .write(&mut frame, b"ping")
            .expect("it can be built");
        frames.push((format!("ICMP echo to {what}"), frame));
        let mut frame = Vec::new();
        let ip = ethernet().ipv6(CLIENT.v6.octets(), to.v6.octets(), 64);
        ip.icmpv6_echo_request(1, 2)
            .write(&mut frame, b"ping")
            .expect("it can be built");
        frames.push((format!("ICMPv6 echo to {what}"), frame));
        let mut frame = Vec::new();
        let ip = ethernet().ipv6(CLIENT.v6.octets(), to.v6.octets(), 255);
        // A neighbour solicitation: reserved, and the target.
        let solicitation = Icmpv6Type::Unknown {
            type_u8: 135,
            code_u8: 0,
            bytes5to8: [0; 4],
        };
        ip.icmpv6(solicitation)
            .write(&mut frame, &to.v6.octets())
            .expect("it can be built");
        frames.push((format!("a neighbour solicitation for {what}"), frame));
    }
    frames
}

/// TCP and UDP that no service has.
fn others() -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut add = |what: &str, from: SocketAddr, to: SocketAddr| {
        for (protocol, packet) in [("TCP", tcp(from, to)), ("UDP", udp(from, to))] {
            for vlan in [None, Some(7)] {
                for (kind, packet) in [
                    ("", packet.clone()),
                    ("that opens a connection ", packet.clone().opening()),
                    ("with a TTL of 1 ", packet.clone().ttl(1)),
                    ("in fragments ", packet.clone().fragment(10, true)),
                ] {
                    // What has no ports is dropped for the address alone.
                    if packet.fragment.is_some()
                        && [VIP.v4.into(), VIP.v6.into()].contains(&to.ip())
                    {
                        continue;
                    }
                    let what = format!("{protocol} {kind}{what}, tag {vlan:?}");
                    frames.push((what, packet.vlan(vlan).bytes()));
                }
            }
        }
    };
    for family in FAMILIES {
        let from = CLIENT.at(family, CLIENT_PORT);
        for port in [22, 80, 0, 65535] {
            add(
                &format!("to the VIP's port {port}"),
                from,
                VIP.at(family, port),
            );
        }
        for port in [22, 81, 82, 83] {
            add(
                &format!("to another address's port {port}"),
                from,
                client(9).at(family, port),
            );
            add(
                &format!("to a backend's port {port}"),
                from,
                backend(1).at(family, port),
            );
        }
        // From a backend, but not from the port that serves.
        for port in [22, 8081] {
            add(
                &format!("from a backend's port {port}"),
                backend(1).at(family, port),
                from,
            );
        }
        // From a port that serves, but of nobody's backend.
        add(
            "from a port like a backend's",
            client(8).at(family, 8080),
            from,
        );
        // An answer of `dsr` goes past Weir, and if not is the kernel's.
        add("from the VIP", VIP.at(family, 83), from);
    }
    frames
}

#[test]
fn what_is_for_no_service_is_the_kernels() -> Result<()> {
    World::with(everything(), |world| {
        let frames = [below_ip(), icmp(), others()].concat();
        for (what, frame) in &frames {
            for side in [Side::Client, Side::Backend] {
                passes(world, side, frame).with_context(|| what.clone())?;
            }
        }
        // And with no service at all nothing is for one.
        let served: Vec<_> = kinds()
            .map(|kind| (kind.name(), kind.request().opening().bytes()))
            .collect();
        world.apply(|desired| desired.services.clear())?;
        for (what, frame) in frames.iter().chain(&served) {
            passes(world, Side::Client, frame).with_context(|| what.clone())?;
        }
        Ok(())
    })
}

/// What a backend says to the balancer itself, in answer to a health check.
#[test]
fn answers_to_the_balancer_itself() -> Result<()> {
    World::with(everything(), |world| {
        for kind in kinds().filter(|kind| kind.mode == Mode::Nat) {
            let to: IpAddr = match kind.family {
                4 => [198, 18, 1, 1].into(),
                _ => [0x2001, 0xdb8, 0, 1, 0, 0, 0, 1].into(),
            };
            let answer = kind
                .answer()
                .between(kind.backend(), (to, CLIENT_PORT).into());
            passes(world, Side::Backend, &answer.bytes()).with_context(|| kind.name())?;
        }
        Ok(())
    })
}

pub(crate) fn passes(world: &World, side: Side, frame: &[u8]) -> Result<()> {
    let (ran, counted) = world.observe(side, frame)?;
    ensure!(
        ran.action == XDP_PASS,
        "action {}; counted {counted:?}",
        ran.action
    );
    ensure!(counted.is_empty(), "counted {counted:?}");
    same(&ran.frame, frame)
}

/// A service's address and port belong to it with its protocol only.
#[test]
fn the_other_protocol_is_the_kernels() -> Result<()> {
    World::with(everything(), |world| {
        world.apply(|desired| {
            desired
                .services
                .retain(|_, service| service.protocol == Protocol::Tcp)
        })?;
        for kind in kinds().filter(|kind| kind.protocol == Protocol::Udp) {
            passes(world, Side::Client, &kind.request().bytes()).with_context(|| kind.name())?;
            let answer = kind.answer().bytes();
            passes(world, Side::Backend, &answer).with_context(|| kind.name())?;
        }
        Ok(())
    })
}
