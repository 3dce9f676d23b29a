//! Senders that are told that their packet goes nowhere.

use anyhow::{Result, ensure};
use etherparse::{
    Icmpv4Type, Icmpv6Type, PacketBuilder, VlanId, icmpv4::DestUnreachableHeader, icmpv6,
};
use lb_common::reason::Reason;
use lb_userspace::desired::{Condition, Mode, OnDeath, OnEmpty, Protocol};
use weir_tests::wire::{Case, Packet, Side, Transport, Verdict, World, pin};

use crate::scene::{Kind, alone, kinds};

/// The answer to a TCP packet: `numbers` are its sequence and acknowledgement numbers.
pub(crate) fn reset(packet: &Packet, numbers: (u32, Option<u32>)) -> Vec<u8> {
    let answer = turned_round(packet).carrying(0).header(|tcp| {
        *tcp = etherparse::TcpHeader::new(0, 0, numbers.0, 0);
        tcp.rst = true;
        tcp.ack = numbers.1.is_some();
        tcp.acknowledgment_number = numbers.1.unwrap_or(0);
    });
    padded(packet, answer.bytes())
}

/// The answer to a UDP packet without IP options.
pub(crate) fn unreachable(packet: &Packet) -> Vec<u8> {
    let back = turned_round(packet);
    let ethernet = PacketBuilder::ethernet2(back.macs.0, back.macs.1);
    let bytes = packet.bytes();
    let quoted = &bytes[packet.l3()..packet.l4() + 8];
    let (from, to) = (back.source.ip(), back.destination.ip());
    let mut answer = Vec::new();
    macro_rules! write {
        ($link:expr) => {
            match (from, to) {
                (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => $link
                    .ipv4(from.octets(), to.octets(), 64)
                    .icmpv4(Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port))
                    .write(&mut answer, quoted),
                (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => $link
                    .ipv6(from.octets(), to.octets(), 64)
                    .icmpv6(Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port))
                    .write(&mut answer, quoted),
                _ => panic!("a packet has one family"),
            }
        };
    }
    match packet.vlan {
        Some(id) => write!(ethernet.single_vlan(VlanId::try_new(id).unwrap())),
        None => write!(ethernet),
    }
    .unwrap();
    answer
}

fn turned_round(packet: &Packet) -> Packet {
    Packet {
        marked: false,
        options: Vec::new(),
        trailer: Vec::new(),
        ..packet.clone()
    }
    .macs(packet.macs.1, packet.macs.0)
    .between(packet.destination, packet.source)
    .ttl(64)
}

/// A frame that was as long as Ethernet asks for stays so: behind the answer's end is what was
/// there before.
fn padded(packet: &Packet, mut answer: Vec<u8>) -> Vec<u8> {
    let frame = packet.bytes();
    let end = frame.len().min(60);
    if end > answer.len() {
        answer.extend(&frame[answer.len()..end]);
    }
    answer
}

/// What is answered how: in words, and what is changed in a plain packet.
#[expect(clippy::type_complexity, reason = "a table")]
const TCP: &[(&str, fn(Packet) -> Packet, (u32, Option<u32>))] = &[
    (
        "an ACK: its number is the RST's",
        |packet| packet,
        (0x0506_0708, None),
    ),
    (
        "a SYN: the RST acknowledges it",
        |packet| packet.opening().carrying(0),
        (0, Some(0x0102_0305)),
    ),
    (
        "a SYN with data",
        |packet| packet.opening(),
        (0, Some(0x0102_0305 + 20)),
    ),
    (
        "a SYN with options",
        |packet| {
            packet
                .opening()
                .carrying(0)
                .header(|tcp| tcp.set_options_raw(&[2, 4, 5, 0xb4]).unwrap())
        },
        (0, Some(0x0102_0305)),
    ),
    (
        "a SYN in a frame with padding",
        |packet| packet.opening().carrying(0).trailed(6),
        (0, Some(0x0102_0305)),
    ),
    (
        "a tagged SYN",
        |packet| packet.opening().carrying(0).vlan(9),
        (0, Some(0x0102_0305)),
    ),
    (
        "a FIN without ACK",
        |packet| {
            packet.carrying(3).header(|tcp| {
                (tcp.fin, tcp.ack, tcp.acknowledgment_number) = (true, false, 0);
            })
        },
        (0, Some(0x0102_0304 + 4)),
    ),
];

fn refused(kind: Kind, reason: Reason) -> Vec<Case> {
    let case = |what: String, packet: Packet, verdict| Case {
        what: format!("{}: {what}", kind.name()),
        side: Side::Client,
        packet,
        verdict,
        service: kind.name(),
    };
    let refuse = |what: &str, packet: Packet| {
        let answer = unreachable(&packet);
        case(what.to_owned(), packet, Verdict::Refuse(reason, answer))
    };
    let request = kind.request();
    let mut cases = Vec::new();
    if kind.protocol == Protocol::Udp {
        cases.push(refuse("a datagram", request.clone()));
        cases.push(refuse("a tagged datagram", request.clone().vlan(9)));
        cases.push(refuse("a datagram in a long frame", request.clone().carrying(1000)));
        cases.push(refuse("an empty datagram", request.clone().carrying(0).trailed(18)));
        if kind.family == 4 {
            cases.push(case(
                "a datagram behind options, which is not quoted".to_owned(),
                request.options(&[1, 1, 1, 0]),
                Verdict::Drop(reason),
            ));
        }
        return cases;
    }
    for (what, shape, numbers) in TCP {
        let packet = shape(request.clone());
        // Where there is no backend at all a flow that is not known has the other reason.
        if kind.mode == Mode::FullNat && !packet.opens() {
            continue;
        }
        let answer = reset(&packet, *numbers);
        cases.push(case((*what).to_owned(), packet, Verdict::Refuse(reason, answer)));
    }
    if kind.mode != Mode::FullNat {
        cases.push(case(
            "a RST, which is not answered".to_owned(),
            request.header(|tcp| tcp.rst = true),
            Verdict::Drop(reason),
        ));
    }
    cases
}

#[test]
fn no_backend_left() -> Result<()> {
    for kind in kinds() {
        World::with(alone(kind, &[]), |world| {
            refused(kind, Reason::NoBackend)
                .iter()
                .try_for_each(|case| case.check(world))?;
            world.apply(|desired| {
                let services = desired.services.values_mut();
                services.for_each(|service| service.on_empty = OnEmpty::Drop);
            })?;
            let packet = kind.request().opening();
            let case = Case {
                what: format!("{}: told to be silent", kind.name()),
                side: Side::Client,
                packet,
                verdict: Verdict::Drop(Reason::NoBackend),
                service: kind.name(),
            };
            case.check(world)
        })?;
    }
    Ok(())
}
