//! Connections that `least-connections` counts.

use std::collections::BTreeMap;

use lb_common::{
    abi::{algorithm, flow_state},
    packet::tcp_flags::{ACK, FIN, RST, SYN},
};

use crate::{
    memory,
    wire::{self, Sent},
    world::{Policy, World},
};

/// Its backends, of which there is one, are `nat`'s.
fn least_connections() -> World {
    let mut world = World::new(1, Policy::of(false));
    world.set_algorithm(algorithm::LEAST_CONNECTIONS);
    world
}

/// The client sends; connections are counted then.
fn send(world: &World, flags: u8) -> BTreeMap<u32, u64> {
    match wire::send(&world.tables, wire::client(0), Some(flags)) {
        Sent::To(1, _) => counted(world),
        sent => panic!("{sent:?}"),
    }
}

/// The backend answers; connections are counted then.
fn answer(world: &World, flags: u8) -> BTreeMap<u32, u64> {
    wire::answer(&world.tables, 1, wire::client(0), Some(flags)).expect("a way to the client");
    counted(world)
}

fn counted(world: &World) -> BTreeMap<u32, u64> {
    memory::counts(&world.tables)[0].clone()
}

#[test]
fn a_nat_backend_that_hangs_up_is_counted_down_at_once() {
    let (one, none) = (BTreeMap::from([(1, 1)]), BTreeMap::new());
    for last in [ACK | FIN, RST] {
        let world = least_connections();
        assert_eq!(send(&world, SYN), one);
        assert_eq!(answer(&world, SYN | ACK), one);
        assert_eq!(send(&world, ACK), one);
        assert_eq!(answer(&world, last), none, "flags {last}");
        assert_eq!(answer(&world, last), none, "flags {last}, again");
        assert_eq!(send(&world, ACK | FIN), none);
        assert_eq!(send(&world, SYN), one, "the next connection");
    }
}

#[test]
fn a_connection_after_one_that_was_refused_lives_as_long_as_any() {
    let world = least_connections();
    let one = BTreeMap::from([(1, 1)]);
    assert_eq!(send(&world, SYN), one);
    assert_eq!(answer(&world, RST), BTreeMap::new());
    assert_eq!(send(&world, SYN), one);
    let flows = world.tables.flows.borrow();
    let closed = flows.values().map(|flow| flow.state & flow_state::CLOSED);
    assert_eq!(closed.collect::<Vec<_>>(), [0]);
}
