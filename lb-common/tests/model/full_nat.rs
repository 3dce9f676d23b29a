//! `full-nat`'s source endpoints when there are few of them, what is left of flows, and the
//! moments within a change.

use lb_common::{
    abi::{NatReturn, backend_flags},
    memory::Memory,
    packet::{
        ipv4_address,
        tcp_flags::{ACK, RST, SYN},
    },
    reason::Reason,
    steer::Verdict,
};

use crate::{
    wire::{self, Endpoint, Sent},
    world::{Policy, World},
};

/// One backend, and two ports of two source addresses.
fn four_endpoints() -> World {
    let mut world = World::new(1, Policy::of(true));
    for service in world.tables.services.values_mut() {
        service.port_last = service.port_first + 1;
    }
    world
}

/// A client's packet; the source that the backend sees.
fn send(tables: &Memory, client: u16, flags: u8) -> Result<Endpoint, Verdict> {
    match wire::send(tables, wire::client(client), Some(flags)) {
        Sent::To(_, source) => Ok(source),
        Sent::Not(verdict) => Err(verdict),
    }
}

fn pass(tables: &Memory, ticks: u32) {
    tables.tick.set(tables.tick.get() + ticks);
}

/// The backend side of the flow with a source.
fn change(tables: &Memory, source: Endpoint, change: impl Fn(&mut NatReturn)) {
    let address = ipv4_address(u32::from_ne_bytes(source.0));
    let mut flows = tables.nat_return.borrow_mut();
    let of_it = flows.iter_mut().find(|(key, _)| {
        (key.destination, u16::from_be(key.destination_port)) == (address, source.1)
    });
    let (_, flow) = of_it.expect("a flow with this source");
    change(flow);
}

#[test]
fn the_port_of_a_flow_that_has_ended_goes_to_whoever_needs_it() {
    let world = four_endpoints();
    let tables = &world.tables;
    let sources: Vec<_> = (0..4).map(|client| send(tables, client, SYN)).collect();
    let exhausted = Err(Verdict::Drop(Reason::PortsExhausted));
    pass(tables, 1);
    assert_eq!(send(tables, 4, SYN), exhausted, "all are in use");
    assert_eq!(send(tables, 2, RST), sources[2]);
    assert_eq!(send(tables, 4, SYN), exhausted, "it has only just ended");
    pass(tables, 2);
    assert_eq!(send(tables, 1, RST), sources[1]);
    pass(tables, 2);
    assert_eq!(
        send(tables, 4, SYN),
        sources[2],
        "the one quiet for longest"
    );
    assert_eq!(
        send(tables, 2, ACK),
        Err(Verdict::Answer),
        "it is another's"
    );
    assert_eq!(send(tables, 5, SYN), sources[1]);
    assert_eq!(send(tables, 2, SYN), exhausted);
    assert_eq!(send(tables, 3, ACK), sources[3], "it goes on");
}

#[test]
fn a_flow_whose_port_is_anothers_by_now_begins_anew() {
    let world = four_endpoints();
    let tables = &world.tables;
    let old = send(tables, 0, SYN).expect("there are four");
    change(tables, old, |flow| {
        flow.client_port = wire::client(7).1.to_be()
    });
    pass(tables, 1);
    assert_eq!(send(tables, 0, ACK), Err(Verdict::Answer));
    let new = send(tables, 0, SYN).expect("there are three more");
    assert_ne!(new, old);
    assert_eq!(send(tables, 0, ACK), Ok(new));
}

#[test]
fn what_is_left_of_a_flow_does_not_end_the_next_with_its_numbers() {
    let world = four_endpoints();
    let tables = &world.tables;
    let old = send(tables, 0, SYN).expect("there are four");
    // Its backend was taken out and came back, say.
    tables.nat_forward.borrow_mut().clear();
    let new = send(tables, 0, SYN).expect("there are three more");
    change(tables, old, |flow| flow.last_seen = 0);
    let others: Vec<_> = (1..4).map(|client| send(tables, client, SYN)).collect();
    assert!(others.contains(&Ok(old)), "{old:?} not among {others:?}");
    pass(tables, 1);
    assert_eq!(send(tables, 0, ACK), Ok(new));
}

#[test]
fn a_new_flow_goes_where_its_slot_says_while_a_drain_is_being_written() {
    let mut world = four_endpoints();
    let backend = world.tables.backends.get_mut(&1).expect("one backend");
    // The agent writes backends first, and then the slots.
    backend.flags &= !backend_flags::ALIVE;
    let tables = &world.tables;
    let source = send(tables, 0, SYN);
    assert!(source.is_ok(), "{source:?}");
    assert_eq!(send(tables, 0, SYN), source);
    assert_eq!(send(tables, 0, ACK), source);
}
