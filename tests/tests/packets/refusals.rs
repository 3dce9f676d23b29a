//! Senders that are told that their packet goes nowhere.

use std::sync::Arc;

use anyhow::{Result, ensure};
use lb_common::reason::Reason;
use lb_userspace::{
    dataplane::Question,
    desired::{Condition, DesiredService, Mode, OnDeath, OnEmpty, Protocol},
};
use weir_tests::{
    cpu,
    wire::{Case, IcmpError, Packet, Side, Verdict, World, went_out},
};

use crate::scene::{Kind, Shape, alone, everything, kinds, several};

/// A segment's sequence number, and what it acknowledges.
type Numbers = (u32, Option<u32>);

/// The answer to a TCP packet, with these numbers.
pub(crate) fn reset(packet: &Packet, numbers: Numbers) -> Vec<u8> {
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
    let (from, to) = packet.macs;
    let kind = match packet.family() {
        4 => (3, 3),
        _ => (1, 4),
    };
    let mut error = IcmpError::about(packet, packet.destination.ip(), kind);
    error.quote.truncate(packet.l4() + 8 - packet.l3());
    error.macs(to, from).vlan(packet.vlan).bytes()
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
const TCP: &[(&str, Shape, Numbers)] = &[
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
        cases.push(refuse(
            "a datagram in a long frame",
            request.clone().carrying(1000),
        ));
        cases.push(refuse(
            "an empty datagram",
            request.clone().carrying(0).trailed(18),
        ));
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
        cases.push(case(
            (*what).to_owned(),
            packet,
            Verdict::Refuse(reason, answer),
        ));
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

fn one(kind: Kind, what: &str, packet: Packet, verdict: Verdict) -> Case {
    Case {
        what: format!("{}: {what}", kind.name()),
        side: Side::Client,
        packet,
        verdict,
        service: kind.name(),
    }
}

/// Changes every service.
fn all_services(world: &mut World, change: impl Fn(&mut DesiredService)) -> Result<()> {
    world.apply(|desired| desired.services.values_mut().for_each(change))
}

#[test]
fn no_backend_left() -> Result<()> {
    let mut desired = everything();
    desired
        .pools
        .values_mut()
        .for_each(|pool| Arc::make_mut(pool).clear());
    World::with(desired, |world| {
        let mut cases = kinds().flat_map(|kind| refused(kind, Reason::NoBackend));
        cases.try_for_each(|case| case.check(world))?;
        all_services(world, |service| service.on_empty = OnEmpty::Drop)?;
        kinds().try_for_each(|kind| {
            let (packet, verdict) = (kind.request().opening(), Verdict::Drop(Reason::NoBackend));
            one(kind, "told to be silent", packet, verdict).check(world)
        })
    })
}

#[test]
fn flows_that_full_nat_does_not_know() -> Result<()> {
    let of_this = |kind: &Kind| (kind.mode, kind.protocol) == (Mode::FullNat, Protocol::Tcp);
    World::with(everything(), |world| {
        for kind in kinds().filter(of_this) {
            for (what, shape, numbers) in TCP {
                let packet = shape(kind.request());
                if packet.opens() {
                    continue;
                }
                let answer = reset(&packet, *numbers);
                let refused = Verdict::Refuse(Reason::UnknownFlow, answer);
                one(kind, what, packet, refused).check(world)?;
            }
        }
        all_services(world, |service| service.on_death = OnDeath::Silent)?;
        kinds().filter(of_this).try_for_each(|kind| {
            let verdict = Verdict::Drop(Reason::UnknownFlow);
            one(kind, "told to be silent", kind.request(), verdict).check(world)
        })
    })
}

/// The numbers of the backends of the services below.
const NUMBERS: [u8; 2] = [1, 4];

#[test]
fn connections_of_a_dead_backend() -> Result<()> {
    World::with(several(kinds(), &NUMBERS), |world| {
        let mut others = Vec::new();
        for kind in kinds() {
            let (owner, other) = owner_and_other(world, kind)?;
            let (first, to) = (kind.request().opening(), NUMBERS[owner]);
            let out = Verdict::Redirect(kind.forwarded_to(to, first.clone()));
            one(kind, "while it lives", first, out).check(world)?;
            world.apply(|desired| {
                let pool = desired.pools.get_mut(&kind.name());
                let dead = pool.and_then(|pool| Arc::make_mut(pool).get_mut(&owner.to_string()));
                dead.expect("it is there").condition = Condition::Dead;
            })?;
            others.push((kind, NUMBERS[other]));
        }
        let elsewhere =
            |kind: Kind, other, packet: Packet| Verdict::Redirect(kind.forwarded_to(other, packet));
        for &(kind, other) in &others {
            let request = kind.request();
            let verdict = match kind.protocol {
                Protocol::Tcp => {
                    let answer = reset(&request, (0x0506_0708, None));
                    Verdict::Refuse(Reason::BackendDead, answer)
                }
                // There is no connection to reset.
                Protocol::Udp => elsewhere(kind, other, request.clone()),
            };
            one(kind, "of its flow", request, verdict).check(world)?;
        }
        all_services(world, |service| service.on_death = OnDeath::Silent)?;
        for &(kind, other) in &others {
            let request = kind.request();
            let verdict = match (kind.protocol, kind.mode) {
                // It was forgotten when its client was told.
                (Protocol::Tcp, Mode::FullNat) => Verdict::Drop(Reason::UnknownFlow),
                _ => elsewhere(kind, other, request.clone()),
            };
            one(kind, "told to be silent", request, verdict).check(world)?;
        }
        for &(kind, other) in &others {
            let first = kind.request().opening();
            let out = elsewhere(kind, other, first.clone());
            one(kind, "anew, on the same numbers", first, out).check(world)?;
        }
        Ok(())
    })
}

/// Which of two backends a service's client goes to, and which it does not.
fn owner_and_other(world: &World, kind: Kind) -> Result<(usize, usize)> {
    let question = Question {
        protocol: kind.protocol,
        client: kind.client(),
        vip: kind.vip(),
    };
    let owner = world.dataplane.explain(&question)?.new_flows;
    let owner = usize::from(owner == Some(format!("{}/1", kind.name())));
    Ok((owner, 1 - owner))
}

#[test]
fn icmp_errors_are_limited() -> Result<()> {
    let kind = Kind::new(Mode::Nat, Protocol::Udp, 4);
    // More than a CPU sends in two of the program's seconds, and this takes less than two.
    const DATAGRAMS: usize = 1100;
    World::with(alone(kind, &[]), |world| {
        cpu::pin(cpu::last()?)?;
        let mut answered = 0;
        for _ in 0..DATAGRAMS {
            let ran = world.feed(Side::Client, &kind.request().bytes())?;
            answered += usize::from(went_out(ran.action));
        }
        ensure!(
            (500..DATAGRAMS).contains(&answered),
            "{answered} of {DATAGRAMS} were answered"
        );
        let counters = world.dataplane.counters()?;
        let drops = &counters.services[&kind.name()].drops;
        ensure!(
            drops[Reason::NoBackend.name()] == DATAGRAMS as u64,
            "{drops:?}"
        );
        Ok(())
    })
}
