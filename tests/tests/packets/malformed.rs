//! Packets that are cut short, or whose length fields are wrong: they pass, or are dropped as
//! malformed, and never go out.

use anyhow::{Context as _, Result, ensure};
use lb_common::reason::Reason;
use lb_userspace::desired::{Mode, Protocol};
use weir_tests::wire::{Packet, Side, Transport, World, dropped, went_out};

use crate::{
    passing::passes,
    scene::{Kind, everything, kinds},
};

/// Whole packets of every kind, in both directions.
fn packets(kind: Kind) -> Vec<(Side, Packet)> {
    let request = kind.request();
    let mut packets = vec![
        (Side::Client, request.clone().opening()),
        (Side::Client, request.clone()),
        (Side::Client, request.clone().carrying(0)),
        (Side::Client, request.clone().vlan(7)),
    ];
    if kind.family == 4 {
        packets.push((Side::Client, request.clone().options(&[1; 12])));
    }
    if kind.protocol == Protocol::Tcp {
        let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        let change = |tcp: &mut etherparse::TcpHeader| tcp.set_options_raw(&options).unwrap();
        packets.push((Side::Client, request.header(change)));
    }
    if kind.mode != Mode::Dsr {
        packets.push((Side::Backend, kind.answer()));
    }
    packets
}

/// All of them, once the flows of `full-nat` are open.
fn with_packets(check: impl Fn(&World, Side, &Packet) -> Result<()> + Sync) -> Result<()> {
    World::with(everything(), |world| {
        for (side, packet) in kinds().flat_map(packets) {
            let ran = world.feed(side, &packet.bytes())?;
            ensure!(went_out(ran.action), "whole: {packet:?}");
            check(world, side, &packet).with_context(|| format!("{packet:?}"))?;
        }
        Ok(())
    })
}

/// Dropped as malformed if it is for a VIP, whose port is not looked at then; else the kernel's.
fn is_malformed(world: &World, side: Side, packet: &Packet, frame: &[u8]) -> Result<()> {
    if side == Side::Backend {
        return passes(world, side, frame);
    }
    let (ran, counted) = world.observe(side, frame)?;
    ensure!(!went_out(ran.action), "it went out: {}", ran.action);
    let expected = dropped("", Reason::Malformed);
    ensure!(counted == expected, "counted {counted:?}: {packet:?}");
    Ok(())
}

#[test]
fn cut_short_at_every_length() -> Result<()> {
    with_packets(|world, side, packet| {
        let whole = packet.bytes();
        let header = match packet.family() {
            4 => 20,
            _ => 40,
        };
        // BPF_PROG_TEST_RUN takes no frame below an Ethernet header's length.
        for length in 14..whole.len() {
            let frame = &whole[..length];
            match length < packet.l3() + header {
                true => passes(world, side, frame),
                false => is_malformed(world, side, packet, frame),
            }
            .with_context(|| format!("{length} of {} bytes", whole.len()))?;
        }
        Ok(())
    })
}

/// Whatever a field of 16 bits at `offset` says: out only if it is what `fits`.
fn every_length(
    world: &World,
    (side, packet): (Side, &Packet),
    offset: usize,
    fits: impl Fn(usize) -> bool,
) -> Result<()> {
    let whole = packet.bytes();
    let values = (0..=whole.len() + 8).chain([255, 256, 1500, 0x7fff, 0x8000, 0xfffe, 0xffff]);
    for value in values {
        let mut frame = whole.clone();
        frame[offset..offset + 2].copy_from_slice(&(value as u16).to_be_bytes());
        if fits(value) {
            let ran = world.feed(side, &frame)?;
            ensure!(went_out(ran.action), "length {value}: {}", ran.action);
            continue;
        }
        is_malformed(world, side, packet, &frame).with_context(|| format!("length {value}"))?;
    }
    Ok(())
}

/// Of the packet's IP payload, what must be there at least, and what is.
fn needed(packet: &Packet) -> std::ops::RangeInclusive<usize> {
    let all = packet.bytes().len() - packet.l4();
    match &packet.transport {
        Transport::Tcp(tcp) => tcp.header_len()..=all,
        // Its own length says how much.
        Transport::Udp(_) => all..=all,
    }
}

#[test]
fn wrong_lengths_in_the_ip_header() -> Result<()> {
    with_packets(|world, side, packet| {
        let needed = needed(packet);
        let (offset, header) = match packet.family() {
            4 => (packet.l3() + 2, packet.l4() - packet.l3()),
            _ => (packet.l3() + 4, 0),
        };
        let fits = |value: usize| {
            let payload = value.checked_sub(header);
            payload.is_some_and(|payload| needed.contains(&payload))
        };
        every_length(world, (side, packet), offset, fits)
    })
}

#[test]
fn wrong_lengths_in_the_udp_header() -> Result<()> {
    with_packets(|world, side, packet| {
        if packet.transport != Transport::Udp(true) {
            return Ok(());
        }
        let all = *needed(packet).end();
        let offset = packet.l4() + 4;
        every_length(world, (side, packet), offset, |value| {
            (8..=all).contains(&value)
        })
    })
}

#[test]
fn wrong_header_lengths() -> Result<()> {
    with_packets(|world, side, packet| {
        let whole = packet.bytes();
        for value in 0..=255 {
            let mut frame = whole.clone();
            // IP's version, and IPv4's header length.
            frame[packet.l3()] = value;
            if frame == whole || (packet.family() == 6 && value >> 4 == 6) {
                continue;
            }
            let ran = world.feed(side, &frame)?;
            ensure!(!went_out(ran.action), "version and length {value:#x}");
        }
        let Transport::Tcp(_) = packet.transport else {
            return Ok(());
        };
        for words in 0..16 {
            let mut frame = whole.clone();
            frame[packet.l4() + 12] = words << 4;
            let header = usize::from(words) * 4;
            if (20..=*needed(packet).end()).contains(&header) {
                let ran = world.feed(side, &frame)?;
                ensure!(went_out(ran.action), "{words} words: {}", ran.action);
                continue;
            }
            is_malformed(world, side, packet, &frame).with_context(|| format!("{words} words"))?;
        }
        Ok(())
    })
}
