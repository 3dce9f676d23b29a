//! The slots that packets find, as the agent makes them.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::retry;
use lb_common::{abi::Service, slot::Slot};
use lb_userspace::desired::{
    Algorithm, Condition, Desired, DesiredBackend, DesiredPool, DesiredService, Mode, Protocol,
};
use weir_tests::wire::{Map, Rings, World, backend, backends, service, vip};

/// The janitor looks at one ring after the other, and may be between two; if it was not that, its
/// next pass, five seconds later, comes too late to make rings the same.
const A_PASS: Duration = Duration::from_secs(1);

/// The ring of the service with a VIP of this number.
fn ring(world: &World, number: u8) -> Result<Vec<Slot>> {
    let services = Map::open(&world.dataplane, "SERVICES")?.values::<Service>()?;
    let address = vip(number).v4.octets();
    let mut of_vip = services
        .iter()
        .filter(|service| service.ring != 0 && service.address[0].to_ne_bytes()[..4] == address);
    let ring = of_vip.next().context("no such service")?.ring;
    Rings::open(&world.dataplane)?.slots(ring)
}

fn of_pool(number: u8, algorithm: Algorithm) -> (String, DesiredService) {
    let at = vip(number).at(4, 80);
    let service = service(at, Protocol::Tcp, Mode::Dsr, "p");
    let service = DesiredService {
        algorithm,
        ..service
    };
    (format!("s{number}"), service)
}

/// A pool of so many.
fn pool(size: u16) -> Arc<DesiredPool> {
    let ports: Vec<SocketAddr> = (1..=size).map(|port| backend(1).at(4, port)).collect();
    backends(&ports)
}

/// Changes one of the pool's.
fn change(desired: &mut Desired, name: &str, change: impl FnOnce(&mut DesiredBackend)) {
    let pool = desired.pools.get_mut("p").map(Arc::make_mut);
    pool.and_then(|pool| pool.get_mut(name)).map(change);
}

/// One of the largest size, where there is no other yet.
#[test]
fn the_first_ring_may_be_the_largest() -> Result<()> {
    let desired = Desired {
        pools: [("p".to_owned(), pool(700))].into(),
        services: [of_pool(1, Algorithm::Maglev)].into(),
        ..Desired::default()
    };
    World::with(desired, |world| {
        let slots = ring(world, 1)?;
        let owners: BTreeSet<u32> = slots.iter().map(|slot| slot.current()).collect();
        ensure!(slots.len() == 65_536 && owners.len() == 700 && !owners.contains(&0));
        Ok(())
    })
}

/// What a change moves is found out once for the services of a pool: each ring becomes what it
/// would be alone, also those that are larger than the pool needs, in turns, or of a service
/// that came later.
#[test]
fn services_of_a_pool_change_as_if_alone() -> Result<()> {
    const HASHED: [u8; 3] = [1, 2, 3];
    let all = HASHED.map(|number| of_pool(number, Algorithm::Maglev));
    let desired = Desired {
        pools: [("p".to_owned(), pool(8))].into(),
        services: all.into_iter().collect(),
        ..Desired::default()
    };
    let steps: [fn(&mut Desired); 7] = [
        |desired| change(desired, "7", |backend| backend.weight = 30),
        |desired| change(desired, "6", |backend| backend.condition = Condition::Dead),
        |desired| desired.services.extend([of_pool(4, Algorithm::RoundRobin)]),
        |desired| desired.pools.extend([("p".into(), pool(30))]),
        |desired| desired.services.extend([of_pool(5, Algorithm::Maglev)]),
        |desired| {
            change(desired, "29", |backend| {
                backend.condition = Condition::Draining
            })
        },
        |desired| desired.pools.extend([("p".into(), pool(5))]),
    ];
    World::with(desired, |world| {
        for (number, step) in steps.into_iter().enumerate() {
            let late = 6 + number as u8;
            world.apply(step)?;
            // One whose ring is new has what the pool is to have now.
            world.apply(|desired| desired.services.extend([of_pool(late, Algorithm::Maglev)]))?;
            let alone = ring(world, late)?;
            world.apply(|desired| {
                desired
                    .services
                    .retain(|name, _| *name != format!("s{late}"))
            })?;
            let first = retry(A_PASS, || {
                let first = ring(world, HASHED[0])?;
                for service in HASHED {
                    let slots = ring(world, service)?;
                    ensure!(
                        slots == first,
                        "step {number}: service {service} has another history"
                    );
                }
                Ok(first)
            })?;
            let owners = first.iter().zip(alone.iter().cycle());
            let same = owners.filter(|(old, new)| old.current() == new.current());
            ensure!(same.count() == first.len(), "step {number}: other owners");
        }
        let owners = |number| -> Result<BTreeSet<u32>> {
            Ok(ring(world, number)?
                .iter()
                .map(|slot| slot.current())
                .collect())
        };
        ensure!(owners(1)?.len() == 5 && owners(1)? == owners(4)? && owners(1)? == owners(5)?);
        Ok(())
    })
}
