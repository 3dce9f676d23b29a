//! Which backend a client is given, by each algorithm and by affinity.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_common::abi::{Flow, FlowKey, NatForward, NatReturn};
use lb_userspace::desired::{Algorithm, Desired, DesiredService, Mode};
use weir_tests::wire::{CLIENT, Map, Side, World, client, went_out};

use crate::scene::{Kind, kinds, several};

const BACKENDS: [u8; 4] = [1, 2, 3, 4];

fn desired(kinds: impl IntoIterator<Item = Kind>, change: impl Fn(&mut DesiredService)) -> Desired {
    let mut desired = several(kinds, &BACKENDS);
    desired.services.values_mut().for_each(change);
    desired.source_ports = (1024, 65535);
    desired
}

/// The number of the backend that a client's first packet goes to.
fn backend_of(world: &World, kind: Kind, client: SocketAddr) -> Result<u8> {
    let packet = kind.request().opening().between(client, kind.vip());
    let ran = world.feed(Side::Client, &packet.bytes())?;
    ensure!(went_out(ran.action), "action {}", ran.action);
    // The last byte of the MAC that it goes to.
    Ok(ran.frame[5])
}

/// How many backends the connections of one client are spread over.
fn of_one_client(world: &World, kind: Kind) -> Result<usize> {
    let ports = 20_000..20_040;
    let backends = ports.map(|port| backend_of(world, kind, CLIENT.at(kind.family, port)));
    Ok(backends.collect::<Result<BTreeSet<_>>>()?.len())
}

/// And those of several clients.
fn of_many_clients(world: &World, kind: Kind) -> Result<usize> {
    let backends = (1..60).map(|number| backend_of(world, kind, client(number).at(kind.family, 7)));
    Ok(backends.collect::<Result<BTreeSet<_>>>()?.len())
}

#[test]
fn a_hash_spreads_connections_and_remembers_none() -> Result<()> {
    World::with(desired(kinds(), |_| {}), |world| {
        for kind in kinds() {
            let spread = (of_one_client(world, kind)?, of_many_clients(world, kind)?);
            ensure!(spread == (4, 4), "{}: {spread:?} backends", kind.name());
        }
        let flows = Map::open(&world.dataplane, "FLOWS")?.entries::<FlowKey, Flow>()?;
        ensure!(flows.is_empty(), "{flows:?}");
        Ok(())
    })
}

/// A change of a service.
type Way = fn(&mut DesiredService);

#[test]
fn a_client_stays_with_its_backend() -> Result<()> {
    let ways: [(&str, Way); 2] = [
        ("source-hash", |service| {
            service.algorithm = Algorithm::SourceHash
        }),
        ("affinity", |service| {
            service.affinity = Some(Duration::from_secs(60))
        }),
    ];
    for (what, way) in ways {
        World::with(desired(kinds(), way), |world| {
            for kind in kinds() {
                let spread = (of_one_client(world, kind)?, of_many_clients(world, kind)?);
                ensure!(spread == (1, 4), "{}: {spread:?} backends", kind.name());
            }
            Ok(())
        })
        .context(what)?;
    }
    Ok(())
}

#[test]
fn round_robin_takes_turns_and_remembers() -> Result<()> {
    let kinds = || kinds().filter(|kind| kind.mode != Mode::FullNat);
    let desired = desired(kinds(), |service| service.algorithm = Algorithm::RoundRobin);
    World::with(desired, |world| {
        for kind in kinds() {
            let clients: Vec<_> = (20_000..20_008)
                .map(|port| CLIENT.at(kind.family, port))
                .collect();
            let mut turns = Vec::new();
            for &client in &clients {
                turns.push(backend_of(world, kind, client)?);
            }
            for round in turns.chunks(4) {
                let round: BTreeSet<_> = round.iter().copied().collect();
                ensure!(round == BACKENDS.into(), "{turns:?}");
            }
            for (&client, &backend) in clients.iter().zip(&turns) {
                let packet = kind.request().between(client, kind.vip());
                let ran = world.feed(Side::Client, &packet.bytes())?;
                ensure!(ran.frame[5] == backend, "{client} went to {backend}");
            }
        }
        Ok(())
    })
}

/// Each flow of `full-nat` has a source endpoint of its own, and keeps it on the same numbers.
#[test]
fn full_nat_gives_no_port_twice() -> Result<()> {
    let kinds = || kinds().filter(|kind| kind.mode == Mode::FullNat);
    World::with(desired(kinds(), |_| {}), |world| {
        const FLOWS: usize = 500;
        for kind in kinds() {
            let mut sources = BTreeSet::new();
            let number = |number| CLIENT.at(kind.family, 20_000 + number);
            let clients = (0..FLOWS as u16).map(number);
            for client in clients.clone().chain(clients) {
                let packet = kind.request().opening().between(client, kind.vip());
                let ran = world.feed(Side::Client, &packet.bytes())?;
                ensure!(went_out(ran.action), "action {}", ran.action);
                let l4 = packet.l4();
                // To whom, and from which port.
                sources.insert((ran.frame[5], ran.frame[l4..l4 + 2].to_vec()));
            }
            ensure!(
                sources.len() == FLOWS,
                "{}: {} sources",
                kind.name(),
                sources.len()
            );
        }
        let flows = FLOWS * kinds().count();
        let forward = Map::open(&world.dataplane, "NAT_FORWARD")?;
        let back = Map::open(&world.dataplane, "NAT_RETURN")?;
        ensure!(
            forward.entries::<FlowKey, NatForward>()?.len() == flows,
            "forward"
        );
        ensure!(back.entries::<FlowKey, NatReturn>()?.len() == flows, "back");
        Ok(())
    })
}
