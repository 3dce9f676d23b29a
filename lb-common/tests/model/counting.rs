//! Connections that `least-connections` counts.

use std::collections::BTreeMap;

use lb_common::{
    abi::algorithm,
    packet::tcp_flags::{ACK, FIN, RST, SYN},
};

use crate::{
    memory,
    wire::{self, Sent},
    world::{Policy, World},
};

#[test]
fn a_nat_backend_that_hangs_up_is_counted_down_at_once() {
    for last in [ACK | FIN, RST] {
        let policy = Policy {
            silent: false,
            udp: false,
            full_nat: false,
        };
        let mut world = World::new(1, policy);
        world.set_algorithm(algorithm::LEAST_CONNECTIONS);
        let client = wire::client(0);
        let send = |flags| match wire::send(&world.tables, client, Some(flags)) {
            Sent::To(backend, _) => backend,
            Sent::Not(verdict) => panic!("{verdict:?}"),
        };
        let counted = || memory::counts(&world.tables)[0].clone();
        assert_eq!((send(SYN), counted()), (1, BTreeMap::from([(1, 1)])));
        let answer = |flags| wire::answer(&world.tables, 1, client, Some(flags)).expect("known");
        answer(SYN | ACK);
        assert_eq!((send(ACK), counted()), (1, BTreeMap::from([(1, 1)])));
        answer(last);
        assert_eq!(counted(), BTreeMap::new(), "flags {last}");
        answer(last);
        assert_eq!((send(ACK | FIN), counted()), (1, BTreeMap::new()));
        assert_eq!((send(SYN), counted()), (1, BTreeMap::from([(1, 1)])));
    }
}
