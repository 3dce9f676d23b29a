//! Fragments follow their first.

use anyhow::{Context as _, Result, ensure};
use lb_common::reason::Reason;
use lb_userspace::desired::{Mode, Protocol};
use weir_tests::wire::{
    Counts, LB_BACKEND_MAC, Packet, Side, Transport, World, backend, client, dropped, forwarded,
    fragment_id, fragments, same,
};

use crate::{
    passing::passes,
    scene::{Kind, Shape, everything, kinds, several},
};

const XDP_DROP: u32 = 1;
const XDP_REDIRECT: u32 = 4;

const ID: u32 = 0x1234_4321;
/// Where packets of this many bytes of data are cut.
const CUTS: &[usize] = &[64, 200, 1400];
const DATA: usize = 1500;

/// What is in fragments.
const SHAPES: &[(&str, Shape)] = &[
    ("data", |packet| packet),
    ("a tag that the way out does not have", |packet| {
        packet.vlan(7)
    }),
    ("the last TTL that can be routed", |packet| packet.ttl(2)),
    ("no UDP checksum", |packet| {
        match (packet.family(), &packet.transport) {
            (4, Transport::Udp(_)) => packet.without_checksum(),
            _ => packet,
        }
    }),
    ("IPv4 options", |packet| match packet.family() {
        4 => packet.options(&[1; 8]),
        _ => packet,
    }),
];

/// A packet in both directions where there are: from the side, it, and what it becomes.
fn both(kind: Kind, shape: Shape) -> Vec<(Side, Packet, Packet)> {
    let request = shape(kind.request().opening().carrying(DATA));
    let out = kind.forwarded(request.clone()).vlan(None);
    let mut both = vec![(Side::Client, request, out)];
    if kind.mode != Mode::Dsr {
        let answer = shape(kind.answer().carrying(DATA));
        let out = kind.answered(answer.clone()).vlan(None);
        both.push((Side::Backend, answer, out));
    }
    both
}

fn counts(kind: Kind, side: Side, frame: &[u8], opens: bool) -> Counts {
    if side == Side::Backend {
        return Counts::new();
    }
    let mut counts = forwarded(&kind.name(), frame.len() as u64);
    if opens {
        for whose in [&*kind.name(), "backends"] {
            counts.insert(format!("{whose} connections"), 1);
        }
    }
    counts
}

/// Feeds a fragment that must go out.
fn sent(world: &World, side: Side, frame: &[u8]) -> Result<(Vec<u8>, Counts)> {
    let (ran, counted) = world.observe(side, frame)?;
    ensure!(
        ran.action == XDP_REDIRECT,
        "action {}; counted {counted:?}",
        ran.action
    );
    Ok((ran.frame, counted))
}

/// Feeds a packet's fragments, and compares each with that of what the packet becomes.
fn all_follow(
    world: &World,
    kind: Kind,
    (side, packet, out): &(Side, Packet, Packet),
) -> Result<()> {
    let parts = fragments(packet, ID, CUTS);
    let (first, counted) = sent(world, *side, &parts[0])?;
    let id = fragment_id(out, &first);
    let expected = fragments(out, id, CUTS);
    same(&first, &expected[0])?;
    ensure!(
        counted == counts(kind, *side, &parts[0], packet.opens()),
        "counted {counted:?}"
    );
    if kind.mode == Mode::Dsr {
        let same = if kind.family == 4 { ID & 0xffff } else { ID };
        ensure!(id == same, "it is sent on as it was, but with id {id}");
    }
    // In any order, and also twice.
    for number in [3, 1, 2, 3] {
        let part = &parts[number];
        let what = || format!("fragment {number}");
        let (frame, counted) = sent(world, *side, part).with_context(what)?;
        same(&frame, &expected[number]).with_context(what)?;
        ensure!(
            counted == counts(kind, *side, part, false),
            "counted {counted:?}"
        );
    }
    Ok(())
}

#[test]
fn every_mode_in_both_directions() -> Result<()> {
    World::with(everything(), |world| {
        world.resolved()?;
        for kind in kinds() {
            for (what, shape) in SHAPES {
                for packet in both(kind, *shape) {
                    all_follow(world, kind, &packet)
                        .with_context(|| format!("{}, {:?}: {what}", kind.name(), packet.0))?;
                }
            }
        }
        Ok(())
    })
}

/// Those of other packets do not, and those whose first has not come.
#[test]
fn only_its_own_follow_a_first() -> Result<()> {
    World::with(everything(), |world| {
        world.resolved()?;
        // One client and address for all kinds: what tells their packets apart is the number.
        for (kind, id) in kinds().zip((ID..).step_by(4)) {
            let [(side, packet, _), ..] = &both(kind, |packet| packet)[..] else {
                anyhow::bail!("there is one");
            };
            let unknown = |what: &str, packet: &Packet, id| {
                let part = &fragments(packet, id, CUTS)[1];
                let (ran, counted) = world.observe(*side, part)?;
                ensure!(ran.action == XDP_DROP, "{what}: action {}", ran.action);
                let expected = dropped("", Reason::Fragment);
                ensure!(counted == expected, "{what}: counted {counted:?}");
                anyhow::Ok(())
            };
            unknown("before the first", packet, id)?;
            sent(world, *side, &fragments(packet, id, CUTS)[0])?;
            sent(world, *side, &fragments(packet, id, CUTS)[1])?;
            unknown("of another packet", packet, id + 1)?;
            let from = client(2).at(kind.family, packet.source.port());
            let other = packet.clone().between(from, packet.destination);
            unknown("from another host", &other, id)?;
            let other = Kind {
                protocol: match kind.protocol {
                    Protocol::Tcp => Protocol::Udp,
                    Protocol::Udp => Protocol::Tcp,
                },
                ..kind
            };
            unknown(
                "of another protocol",
                &other.request().carrying(DATA),
                id + 2,
            )?;
        }
        Ok(())
    })
}

/// An answer's, to a client: the kernel knows as little where they belong, but may have the address.
#[test]
fn what_is_from_a_backend_without_its_first_is_the_kernels() -> Result<()> {
    World::with(everything(), |world| {
        for kind in kinds().filter(|kind| kind.mode != Mode::Dsr) {
            let part = &fragments(&kind.answer().carrying(DATA), ID, CUTS)[1];
            passes(world, Side::Backend, part).with_context(|| kind.name())?;
        }
        Ok(())
    })
}

/// Two hosts may number their packets alike, and then be seen under one address.
#[test]
fn what_gets_the_same_addresses_is_told_apart() -> Result<()> {
    let mut desired = several(kinds(), &[1, 4]);
    desired.source_ports = (1024, 65535);
    World::with(desired, |world| {
        world.resolved()?;
        let id_of = |side, packet: &Packet| {
            let out = sent(world, side, &fragments(packet, ID, CUTS)[0])?.0;
            anyhow::Ok(fragment_id(packet, &out))
        };
        for kind in kinds().filter(|kind| kind.protocol == Protocol::Udp) {
            let request = kind.request().carrying(DATA);
            if kind.mode == Mode::FullNat {
                let from = client(2).at(kind.family, request.source.port());
                let other = request.clone().between(from, request.destination);
                let ids = [id_of(Side::Client, &request)?, id_of(Side::Client, &other)?];
                ensure!(ids[0] != ids[1], "{}: both have {ids:?}", kind.name());
            }
            if kind.mode == Mode::Nat {
                let answer = |number| {
                    let packet = kind.packet(kind.numbered(number), kind.client());
                    let mac = backend(number).mac();
                    id_of(
                        Side::Backend,
                        &packet.macs(mac, LB_BACKEND_MAC).carrying(DATA),
                    )
                };
                let ids = [answer(1)?, answer(4)?];
                ensure!(ids[0] != ids[1], "{}: both have {ids:?}", kind.name());
            }
        }
        Ok(())
    })
}

#[test]
fn fragments_that_are_not_routed() -> Result<()> {
    World::with(everything(), |world| {
        world.resolved()?;
        for kind in kinds() {
            let parts = fragments(&kind.request().opening().carrying(DATA), ID, CUTS);
            let is_dropped = |what: &str, frame: &[u8], service: &str, reason| {
                let what = format!("{}: {what}", kind.name());
                let (ran, counted) = world.observe(Side::Client, frame)?;
                ensure!(ran.action == XDP_DROP, "{what}: action {}", ran.action);
                let expected = dropped(service, reason);
                ensure!(counted == expected, "{what}: counted {counted:?}");
                anyhow::Ok(())
            };
            sent(world, Side::Client, &parts[0])?;
            if kind.mode != Mode::Dsr {
                let late = kind.request().opening().carrying(DATA).ttl(1);
                let late = &fragments(&late, ID, CUTS)[1];
                is_dropped("TTL 1", late, &kind.name(), Reason::TtlExceeded)?;
            }
            if kind.protocol == Protocol::Tcp {
                // Another's flags over those of the first.
                let tiny = &fragments(&kind.request().carrying(DATA), ID, &[8])[1];
                is_dropped("over the flags", tiny, "", Reason::Malformed)?;
                // A first without them.
                for length in [8, 16] {
                    let first = &fragments(&kind.request().carrying(DATA), ID + 9, &[length])[0];
                    is_dropped("without flags", first, "", Reason::Malformed)?;
                }
            }
            // Not all of it is there.
            for part in &parts {
                passes(world, Side::Client, &part[..part.len() - 1])
                    .with_context(|| kind.name())?;
            }
        }
        Ok(())
    })
}
