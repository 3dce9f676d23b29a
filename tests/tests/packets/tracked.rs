//! Slots that a change has moved: new connections go to the new owner, and what goes on stays.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use lb_common::abi::{Flow, FlowKey};
use lb_userspace::{
    dataplane::Question,
    desired::{Condition, Delta, Mode, Protocol, Tracking},
};
use weir_tests::wire::{CLIENT, Case, FAMILIES, Map, Packet, Side, Verdict, World, member};

use crate::scene::{Kind, alone, several};

/// The old owner, and the new.
pub(crate) const BASE: u8 = 1;
pub(crate) const CURRENT: u8 = 4;
/// The name of the new one.
pub(crate) const NEW: &str = "new";

fn without_memory(protocol: Protocol) -> impl Iterator<Item = Kind> {
    let of_mode = move |mode| FAMILIES.map(|family| Kind::new(mode, protocol, family));
    [Mode::Nat, Mode::Dsr].into_iter().flat_map(of_mode)
}

pub(crate) fn goes_to(
    world: &World,
    kind: Kind,
    number: u8,
    what: &str,
    packet: Packet,
) -> Result<()> {
    let case = Case {
        what: format!("{}: {what}", kind.name()),
        side: Side::Client,
        verdict: Verdict::Redirect(kind.forwarded_to(number, packet.clone())),
        packet,
        service: kind.name(),
    };
    case.check(world)
}

/// Adds a backend, so that some slots move to it from the only one.
pub(crate) fn add_current(world: &mut World, kind: Kind) -> Result<()> {
    world.apply(|desired| {
        let pool = desired.pools.entry(kind.name()).or_default();
        Arc::make_mut(pool).insert(NEW.to_owned(), member(kind.numbered(CURRENT)));
    })
}

/// Clients whose slots have moved.
pub(crate) fn moved(world: &World, kind: Kind) -> Result<Vec<SocketAddr>> {
    let mut clients = Vec::new();
    for port in 30_000..30_200 {
        let client = CLIENT.at(kind.family, port);
        let question = Question {
            protocol: kind.protocol,
            client,
            vip: kind.vip(),
        };
        let explained = world.dataplane.explain(&question)?;
        if explained.tracked && explained.base != explained.current {
            clients.push(client);
        }
    }
    ensure!(clients.len() > 20, "only {} moved", clients.len());
    Ok(clients)
}

/// How many flows of a service are remembered.
fn remembered(world: &World, kind: Kind) -> Result<usize> {
    let flows = Map::open(&world.dataplane, "FLOWS")?.entries::<FlowKey, Flow>()?;
    let port = kind.vip().port().to_be();
    let its =
        |(key, _): &&(FlowKey, Flow)| key.destination_port == port && key.family == kind.family;
    Ok(flows.iter().filter(its).count())
}

#[test]
fn tcp_on_a_slot_that_has_moved() -> Result<()> {
    let kinds = || without_memory(Protocol::Tcp);
    World::with(several(kinds(), &[BASE]), |world| {
        kinds().try_for_each(|kind| moves(world, kind).with_context(|| kind.name()))
    })
}

fn moves(world: &mut World, kind: Kind) -> Result<()> {
    let from = |client| kind.request().between(client, kind.vip());
    let go = |world: &World, number, what: &str, packet| goes_to(world, kind, number, what, packet);
    go(world, BASE, "a stable slot", kind.request().opening())?;
    ensure!(
        remembered(world, kind)? == 0,
        "a stable slot remembers nothing"
    );
    add_current(world, kind)?;
    let clients = moved(world, kind)?;
    let [old, new, ended, fresh, ..] = clients[..] else {
        anyhow::bail!("there are more");
    };
    go(world, BASE, "what went on before", from(old))?;
    ensure!(remembered(world, kind)? == 1, "it is remembered");
    go(world, CURRENT, "a SYN", from(new).opening())?;
    go(world, CURRENT, "the same SYN again", from(new).opening())?;
    go(world, CURRENT, "of the new connection", from(new))?;
    go(
        world,
        BASE,
        "its FIN",
        from(ended).header(|tcp| tcp.fin = true),
    )?;
    go(world, BASE, "after its FIN", from(ended))?;
    go(world, CURRENT, "its numbers again", from(ended).opening())?;
    go(world, CURRENT, "of that connection", from(ended))?;
    ensure!(remembered(world, kind)? == 3, "one flow each");
    // Another change, which moves the slots back: who is remembered stays.
    condition(world, kind, NEW, Condition::Draining)?;
    go(world, BASE, "what went on before both", from(old))?;
    go(world, CURRENT, "the connection of between", from(new))?;
    go(
        world,
        BASE,
        "a SYN after the change back",
        from(fresh).opening(),
    )?;
    go(world, BASE, "a SYN on numbers in use", from(new).opening())
}

/// It has never been seen alive: on another node its slots may long have been the next one's.
#[test]
fn flows_of_what_was_never_there_are_not_reset() -> Result<()> {
    let kinds = || without_memory(Protocol::Tcp);
    let change = |world: &mut World| {
        let all = kinds().map(|kind| {
            add_current(world, kind)?;
            Ok((kind, moved(world, kind)?[0]))
        });
        let all = all.collect::<Result<Vec<_>>>()?;
        Ok((world.desired.clone(), all))
    };
    let (desired, clients) = World::with(several(kinds(), &[BASE]), change)?;
    // A table that begins with both.
    World::with(desired, |world| {
        for (kind, client) in clients {
            let packet = || kind.request().between(client, kind.vip());
            goes_to(world, kind, CURRENT, "its slot", packet())?;
            condition(world, kind, NEW, Condition::Absent)?;
            goes_to(world, kind, BASE, "it never was there", packet())?;
        }
        Ok(())
    })
}

/// Of a node that starts it is known only after a while who is alive: its first table is nobody's.
#[test]
fn flows_belong_where_the_first_table_of_the_living_says() -> Result<()> {
    let kinds = || without_memory(Protocol::Tcp);
    World::with(several(kinds(), &[BASE]), |world| {
        for kind in kinds() {
            add_current(world, kind)?;
            let [first, opened, ..] = moved(world, kind)?[..] else {
                anyhow::bail!("there are more");
            };
            let from = |client| kind.request().between(client, kind.vip());
            goes_to(world, kind, BASE, "it was its", from(opened))?;
            world.dataplane.change(Delta {
                pools: [(kind.name(), world.desired.pools.get(&kind.name()).cloned())].into(),
                begun: [kind.name()].into(),
                ..Delta::default()
            })?;
            goes_to(world, kind, CURRENT, "nobody remembers it", from(first))?;
            goes_to(world, kind, BASE, "it has spoken", from(opened))?;
        }
        Ok(())
    })
}

fn condition(world: &mut World, kind: Kind, name: &str, condition: Condition) -> Result<()> {
    world.apply(|desired| {
        let pool = desired.pools.get_mut(&kind.name());
        let backend = pool.and_then(|pool| Arc::make_mut(pool).get_mut(name));
        backend.expect("it is there").condition = condition;
    })
}

#[test]
fn udp_on_a_slot_that_has_moved() -> Result<()> {
    let kinds = || without_memory(Protocol::Udp);
    for tracking in [Tracking::Hash, Tracking::Flow] {
        let mut desired = several(kinds(), &[BASE]);
        let services = desired.services.values_mut();
        services.for_each(|service| service.tracking = tracking);
        World::with(desired, |world| {
            kinds().try_for_each(|kind| datagrams(world, kind, tracking))
        })
        .with_context(|| format!("{tracking:?}"))?;
    }
    Ok(())
}

/// Who spoke before the change stays, or goes where its hash says.
fn datagrams(world: &mut World, kind: Kind, tracking: Tracking) -> Result<()> {
    let from = |port| {
        kind.request()
            .between(CLIENT.at(kind.family, port), kind.vip())
    };
    let ports = 30_000..30_200;
    for port in ports.clone() {
        goes_to(world, kind, BASE, "before", from(port))?;
    }
    add_current(world, kind)?;
    let mut elsewhere = 0;
    for port in ports {
        let ran = world.feed(Side::Client, &from(port).bytes())?;
        elsewhere += usize::from(ran.frame[5] == CURRENT);
    }
    let count = remembered(world, kind)?;
    match tracking {
        Tracking::Flow => ensure!((elsewhere, count) == (0, 200), "{elsewhere}, {count}"),
        Tracking::Hash => ensure!(elsewhere > 20 && count == 0, "{elsewhere}, {count}"),
    }
    Ok(())
}

/// `full-nat` knows its flows itself.
#[test]
fn full_nat_after_a_change() -> Result<()> {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let kind = Kind::new(Mode::FullNat, protocol, 4);
        World::with(alone(kind, &[BASE]), |world| {
            goes_to(world, kind, BASE, "the first", kind.request().opening())?;
            add_current(world, kind)?;
            condition(world, kind, "0", Condition::Draining)?;
            goes_to(world, kind, BASE, "of the flow", kind.request())?;
            if protocol == Protocol::Tcp {
                goes_to(world, kind, CURRENT, "anew", kind.request().opening())?;
                goes_to(world, kind, CURRENT, "of the new flow", kind.request())?;
            }
            Ok(())
        })?;
    }
    Ok(())
}
