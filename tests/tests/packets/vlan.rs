//! The VLAN tag: as the next hop has it, whatever the packet came with.

use anyhow::{Context as _, Result};
use lb_common::abi::{Settings, egress};
use lb_userspace::desired::{Mode, Protocol};
use weir_tests::wire::{Case, Map, Packet, Side, Verdict, World, client};

use crate::scene::{Kind, change_next_hops, everything, kinds};

/// Tag in, tag out.
const TAGS: [(&str, Option<u16>, Option<u16>); 5] = [
    ("none", None, None),
    ("removed", Some(7), None),
    ("added", None, Some(9)),
    ("moved", Some(7), Some(9)),
    ("kept", Some(7), Some(7)),
];

fn sent(
    world: &World,
    kind: Kind,
    what: &str,
    side: Side,
    packet: Packet,
    out: Packet,
) -> Result<()> {
    let service = match side {
        Side::Client => kind.name(),
        Side::Backend => String::new(),
    };
    Case {
        what: format!("{}: {what}, from the {side:?}", kind.name()),
        side,
        packet,
        verdict: Verdict::Redirect(out),
        service,
    }
    .check(world)
}

#[test]
fn towards_backends() -> Result<()> {
    World::with(everything(), |world| {
        world.resolved()?;
        for (what, tag, way_out) in TAGS {
            let id = u64::from(way_out.unwrap_or(0));
            change_next_hops(world, |hop| {
                hop.destination = hop.destination << 16 >> 16 | id << 48;
            })?;
            for kind in kinds() {
                for bytes in [0, 1400] {
                    let request = kind.request().opening().vlan(tag).carrying(bytes);
                    let out = kind.forwarded(request.clone()).vlan(way_out);
                    sent(world, kind, what, Side::Client, request, out)?;
                }
            }
        }
        Ok(())
    })
}

/// The way back, by the kernel's routes: the tag is of the interface that they lead out of.
#[test]
fn towards_clients() -> Result<()> {
    World::with(everything(), |world| {
        world.resolved()?;
        let mut interfaces = Map::open(&world.dataplane, "EGRESS")?;
        let interface = world.interface(Side::Client);
        let known = interfaces.entries::<u32, u64>()?.into_iter();
        let device = known
            .filter_map(|(index, exit)| (index == interface).then_some((exit >> 48) as u16))
            .next()
            .context("the client's interface is no way out")?;
        for kind in kinds().filter(|kind| kind.mode == Mode::FullNat) {
            let request = kind.request().opening();
            let out = kind.forwarded(request.clone());
            sent(world, kind, "its flow", Side::Client, request, out)?;
        }
        // Others than before each time: the kernel's answers are remembered for a second.
        for ((what, tag, way_out), number) in TAGS.into_iter().zip(1..) {
            interfaces.insert(interface, egress(interface, way_out.unwrap_or(0), device))?;
            for kind in kinds().filter(|kind| kind.mode == Mode::Nat) {
                let other = client(100 + number).at(kind.family, 1);
                let answer = kind.answer().between(kind.backend(), other).vlan(tag);
                let out = kind.answered(answer.clone()).between(kind.vip(), other);
                sent(world, kind, what, Side::Backend, answer, out.vlan(way_out))?;
            }
        }
        let tag = Some(9);
        interfaces.insert(interface, egress(interface, 9, device))?;
        forget_routes(world)?;
        for kind in kinds().filter(|kind| kind.mode == Mode::FullNat) {
            let answer = kind.answer();
            let out = kind.answered(answer.clone()).vlan(tag);
            sent(world, kind, "of a known flow", Side::Backend, answer, out)?;
        }
        Ok(())
    })
}

/// What the kernel was asked for before counts no more.
fn forget_routes(world: &World) -> Result<()> {
    let mut settings = Map::open(&world.dataplane, "SETTINGS")?;
    let mut values = settings.values::<Settings>()?;
    values[0].route_epoch ^= 1 << 31;
    settings.set(0, values[0])
}

/// A tag that names no VLAN has a priority only: it is as if there were none, and stays.
#[test]
fn a_priority_tag_stays() -> Result<()> {
    let kind = Kind::new(Mode::Nat, Protocol::Tcp, 4);
    World::with(everything(), |world| {
        world.resolved()?;
        let request = kind.request().opening().vlan(0);
        let out = kind.forwarded(request.clone());
        sent(world, kind, "priority", Side::Client, request, out)
    })
}
