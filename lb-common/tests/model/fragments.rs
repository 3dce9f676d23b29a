//! For how long a packet's fragments follow their first.

use lb_common::{
    abi::{IPV4, ServiceKey},
    aside::aside,
    fragment::{lead, remember},
    memory::Memory,
    packet::ipv4_address,
    reason::Reason,
    steer::{Verdict, open, steer},
};

use crate::{
    wire::{self, BACKEND_SIDE, PORT, VIP, packet},
    world::{Policy, World},
};

/// A fragment of a datagram to the VIP; `offset` is in units of eight bytes. What became of it.
fn send(tables: &Memory, offset: u16) -> Verdict {
    const MORE: u16 = 1 << 13;
    let mut frame = packet(wire::client(0), (VIP, PORT), None);
    frame[20..22].copy_from_slice(&(MORE | offset).to_be_bytes());
    assert_eq!(steer(&mut frame, tables), Verdict::Aside);
    let mut verdict = aside(&mut frame, tables);
    while let Verdict::FirstFragment | Verdict::Open = verdict {
        verdict = match verdict {
            Verdict::Open => open(&mut frame, tables),
            _ => lead(&mut frame, tables),
        };
        if let Verdict::Send(_) = verdict {
            remember(&mut frame, tables);
        }
    }
    verdict
}

#[test]
fn a_first_is_remembered_while_hosts_wait_for_the_others() {
    for full_nat in [false, true] {
        let udp = Policy {
            udp: true,
            ..Policy::of(full_nat)
        };
        let mut world = World::new(3, udp);
        let vip = ipv4_address(u32::from_ne_bytes(VIP));
        world.tables.keys.insert(ServiceKey::any_port(IPV4, vip), 0);
        let tables = &world.tables;
        let dropped = Verdict::Drop(Reason::Fragment);
        let sent = |offset| match send(tables, offset) {
            Verdict::Send(exit) => assert_eq!(exit.ifindex, BACKEND_SIDE),
            verdict => panic!("{verdict:?}"),
        };
        assert_eq!(send(tables, 1), dropped, "before the first");
        sent(0);
        sent(1);
        // A minute, of ticks that are a little longer than a second.
        tables.tick.set(tables.tick.get() + 55);
        sent(2);
        tables.tick.set(tables.tick.get() + 5);
        assert_eq!(send(tables, 3), dropped, "after a minute");
        sent(0);
        sent(3);
    }
}
