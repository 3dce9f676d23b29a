//! What a node has remembered, another node knows when it takes its place.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use lb_userspace::{
    desired::{Algorithm, Condition, Desired, Mode, Protocol},
    ha::sync::{Tables, record::Record},
};
use weir_tests::wire::{CLIENT, FAMILIES, Packet, Side, World, client, member, went_out};

use crate::{
    scene::{Kind, kinds, several},
    tracked::{BASE, CURRENT, NEW, add_current, goes_to, moved},
};

fn tables(world: &World) -> Result<Arc<dyn Tables>> {
    world.dataplane.peers().context("it was loaded to tell")
}

/// What it told as it happened, and what it says when it is asked for everything.
fn records(world: &World) -> Result<[Vec<Record>; 2]> {
    let tables = tables(world)?;
    let (news, lost) = tables.news();
    ensure!(!lost, "something did not fit");
    Ok([news, tables.snapshot()?])
}

/// Feeds a packet; what goes out.
fn forwarded(world: &World, side: Side, packet: &Packet) -> Result<Vec<u8>> {
    let ran = world.feed(side, &packet.bytes())?;
    ensure!(went_out(ran.action), "action {}: {packet:?}", ran.action);
    Ok(ran.frame)
}

#[test]
fn flows_of_moved_slots_stay_where_they_were() -> Result<()> {
    for mode in [Mode::Nat, Mode::Dsr] {
        for kind in FAMILIES.map(|family| Kind::new(mode, Protocol::Tcp, family)) {
            moves(kind).with_context(|| kind.name())?;
        }
    }
    Ok(())
}

fn moves(kind: Kind) -> Result<()> {
    let from = |client| kind.request().between(client, kind.vip());
    let first = |world: &mut World| {
        add_current(world, kind)?;
        let clients = moved(world, kind)?;
        let [old, new, ..] = clients[..] else {
            anyhow::bail!("there are more");
        };
        goes_to(world, kind, BASE, "it spoke", from(old))?;
        goes_to(world, kind, CURRENT, "it is new", from(new).opening())?;
        goes_to(world, kind, CURRENT, "it is established", from(new))?;
        let [news, snapshot] = records(world)?;
        ensure!(news.len() == 2, "two flows are news: {news:?}");
        Ok((world.desired.clone(), clients, snapshot))
    };
    let before = several([kind], &[BASE]);
    let (desired, clients, records) = World::with_peers(before, first)?;
    let [old, new, silent, fresh, ..] = clients[..] else {
        anyhow::bail!("there are more");
    };
    // For the other node there was no change: its slots are stable.
    World::with_peers(desired, |world| {
        tables(world)?.take(&records);
        goes_to(world, kind, BASE, "it spoke before", from(old))?;
        goes_to(world, kind, CURRENT, "it was new", from(new))?;
        goes_to(world, kind, BASE, "it did not speak", from(silent))?;
        goes_to(world, kind, CURRENT, "it opens now", from(fresh).opening())
    })
}

/// A change reaches one node before the other: what that one tells of the new backend is kept
/// until it is known here, and found although no slot here is the new backend's.
#[test]
fn flows_of_a_backend_that_comes_later_are_found() -> Result<()> {
    let kind = Kind::new(Mode::Nat, Protocol::Tcp, 4);
    let from = |client| kind.request().between(client, kind.vip());
    let before = several([kind], &[BASE]);
    let first = |world: &mut World| {
        add_current(world, kind)?;
        let clients = moved(world, kind)?;
        goes_to(
            world,
            kind,
            CURRENT,
            "it is new",
            from(clients[0]).opening(),
        )?;
        Ok((clients, records(world)?))
    };
    let (clients, told) = World::with_peers(before.clone(), first)?;
    for records in told {
        World::with_peers(before.clone(), |world| {
            tables(world)?.take(&records);
            world.apply(|desired| {
                let pool = desired.pools.entry(kind.name()).or_default();
                let mut added = member(kind.numbered(CURRENT));
                // It has not passed its check yet.
                added.condition = Condition::Draining;
                Arc::make_mut(pool).insert(NEW.to_owned(), added);
            })?;
            tables(world)?.news();
            goes_to(world, kind, CURRENT, "it was new", from(clients[0]))?;
            goes_to(world, kind, BASE, "nobody knows it", from(clients[1]))?;
            goes_to(
                world,
                kind,
                BASE,
                "it opens now",
                from(clients[2]).opening(),
            )
        })?;
    }
    Ok(())
}

/// Connections that a node opens, and what it makes of packets of theirs, in both directions.
fn continues(desired: Desired, kinds: &[Kind], news_only: bool) -> Result<()> {
    let client = |kind: Kind, number| client(number).at(kind.family, 5000);
    let request = |kind: Kind, number| kind.request().between(client(kind, number), kind.vip());
    let (records, wanted) = World::with_peers(desired.clone(), |world| {
        let mut wanted = Vec::new();
        for &kind in kinds {
            for number in 1..=20 {
                forwarded(world, Side::Client, &request(kind, number).opening())?;
                wanted.push(forwarded(world, Side::Client, &request(kind, number))?);
            }
        }
        let [news, snapshot] = records(world)?;
        Ok((if news_only { news } else { snapshot }, wanted))
    })?;
    World::with_peers(desired, |world| {
        tables(world)?.take(&records);
        let mut wanted = wanted.iter();
        for &kind in kinds {
            for number in 1..=20 {
                let frame = forwarded(world, Side::Client, &request(kind, number))?;
                ensure!(Some(&frame) == wanted.next(), "{}: {number}", kind.name());
                if kind.mode == Mode::FullNat {
                    answered(world, kind, client(kind, number), &frame)?;
                }
            }
        }
        Ok(())
    })
}

/// The answer to a packet that the backend was sent reaches its client.
fn answered(world: &World, kind: Kind, client: SocketAddr, sent: &[u8]) -> Result<()> {
    // The addresses and ports of the frame, turned round.
    let packet = kind.answer();
    let mut answer = packet.bytes();
    let (addresses, length) = if kind.family == 4 { (26, 4) } else { (22, 16) };
    let ports = addresses + 2 * length;
    for (at, length) in [(addresses, length), (ports, 2)] {
        let (source, destination) = (at, at + length);
        answer[source..source + length].copy_from_slice(&sent[destination..destination + length]);
        answer[destination..destination + length].copy_from_slice(&sent[source..source + length]);
    }
    let ran = world.feed(Side::Backend, &answer)?;
    ensure!(went_out(ran.action), "action {}", ran.action);
    let to = &ran.frame[addresses + length..addresses + 2 * length];
    let address = match client.ip() {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    ensure!(to == address, "it goes to {to:?}, not {client}");
    Ok(())
}

#[test]
fn translations_go_on() -> Result<()> {
    let kinds: Vec<Kind> = kinds().filter(|kind| kind.mode == Mode::FullNat).collect();
    let mut desired = several(kinds.iter().copied(), &[1, 2, 3]);
    desired.source_ports = (1024, 65_535);
    continues(desired.clone(), &kinds, false)?;
    continues(desired, &kinds, true)
}

#[test]
fn choices_that_follow_from_nothing_go_on() -> Result<()> {
    for algorithm in [
        Algorithm::RoundRobin,
        Algorithm::LeastConnections,
        Algorithm::Random,
    ] {
        let kinds = [Mode::Nat, Mode::Dsr]
            .map(|mode| FAMILIES.map(|family| Kind::new(mode, Protocol::Tcp, family)))
            .concat();
        let mut desired = several(kinds.iter().copied(), &[1, 2, 3, 4]);
        for service in desired.services.values_mut() {
            service.algorithm = algorithm;
        }
        continues(desired.clone(), &kinds, false).context(algorithm)?;
        continues(desired, &kinds, true).context(algorithm)?;
    }
    Ok(())
}

#[test]
fn clients_keep_the_backends_that_they_had_elsewhere() -> Result<()> {
    let kind = Kind::new(Mode::Dsr, Protocol::Tcp, 4);
    let mut desired = several([kind], &[1, 2, 3, 4]);
    for service in desired.services.values_mut() {
        service.affinity = Some(std::time::Duration::from_secs(60));
        service.algorithm = Algorithm::Random;
    }
    let opens = |world: &World, port: u16| -> Result<Vec<[u8; 6]>> {
        let hosts = (1..=20).map(|number| client(number).at(4, port));
        hosts
            .map(|host| {
                let packet = kind.request().opening().between(host, kind.vip());
                let frame = forwarded(world, Side::Client, &packet)?;
                Ok(*frame.first_chunk::<6>().context("a frame")?)
            })
            .collect()
    };
    ensure!(CLIENT == client(1), "the first client");
    let (records, before) = World::with_peers(desired.clone(), |world| {
        let before = opens(world, 6000)?;
        Ok((tables(world)?.snapshot()?, before))
    })?;
    World::with_peers(desired, |world| {
        tables(world)?.take(&records);
        let after = opens(world, 7000)?;
        ensure!(after == before, "{before:?} became {after:?}");
        Ok(())
    })
}

#[test]
fn what_was_seen_later_is_not_put_back() -> Result<()> {
    let kind = Kind::new(Mode::Dsr, Protocol::Tcp, 4);
    let mut desired = several([kind], &[1, 2]);
    for service in desired.services.values_mut() {
        service.algorithm = Algorithm::RoundRobin;
    }
    World::with_peers(desired, |world| {
        let packet = kind.request();
        let first = forwarded(world, Side::Client, &packet.clone().opening())?;
        let tables = tables(world)?;
        let mut records = tables.snapshot()?;
        let [Record::Flow { backend, idle, .. }] = &mut records[..] else {
            anyhow::bail!("one flow: {records:?}");
        };
        // Another node would have it elsewhere, and has heard of it ten ticks ago.
        let other = [1, 2].map(|number| kind.numbered(number));
        *backend = other
            .into_iter()
            .find(|other| other != backend)
            .context("another")?;
        *idle += 10;
        tables.take(&records);
        let second = forwarded(world, Side::Client, &packet)?;
        ensure!(first[..6] == second[..6], "it has moved");
        Ok(())
    })
}
