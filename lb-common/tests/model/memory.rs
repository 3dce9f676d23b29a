//! The maps of the one service, as the agent's janitor finds them.

use std::collections::BTreeMap;

use lb_common::{
    abi::{IPV4, NextHop, Service, ServiceKey, features, flow_state, mac_word, nat_state},
    full_nat,
    hash::HashKey,
    memory::Memory,
    packet::ipv4_address,
    selection::forgettable,
    slot::Slot,
    tables::{Route, Tables as _},
};

use crate::wire::{CLIENT_MAC, CLIENT_SIDE, CLIENTS, client};

pub(crate) const KEY: HashKey = HashKey([0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321]);
/// The service's index.
const INDEX: u32 = 1;
/// `full-nat`: what backends see as the source.
const SOURCES: [[u8; 4]; 2] = [[192, 0, 2, 10], [192, 0, 2, 11]];

/// Empty maps, with the way to the clients.
pub(crate) fn new() -> Memory {
    let mut tables = Memory::new(KEY);
    tables.features = features::NAT | features::FULL_NAT;
    tables.sources = SOURCES
        .map(|source| ipv4_address(u32::from_ne_bytes(source)))
        .to_vec();
    let hop = NextHop {
        destination: mac_word(CLIENT_MAC),
        source: 0,
        ifindex: CLIENT_SIDE,
        mtu: 0,
        device: 0,
    };
    for number in 0..CLIENTS {
        let address = ipv4_address(u32::from_ne_bytes(client(number).0));
        let route = Route::Via { hop, on_link: true };
        tables.routes.insert(address, route);
    }
    tables
}

/// The slots as the packets find them.
pub(crate) fn slots(tables: &mut Memory) -> &mut Vec<Slot> {
    tables
        .rings
        .entry(0)
        .or_insert_with(|| vec![Slot::default()])
}

/// Puts the service where packets find it.
pub(crate) fn publish(tables: &mut Memory, service: Service) {
    let key = ServiceKey {
        address: service.address,
        port: service.port,
        protocol: service.protocol,
        family: IPV4,
        reserved: 0,
    };
    tables.keys.insert(key, INDEX);
    tables.services.insert(INDEX, service);
}

/// Has what a `nat` backend says be the service's.
pub(crate) fn publish_return(tables: &mut Memory, backend: ServiceKey) {
    tables.returns.insert(backend, INDEX);
}

/// The service as packets find it.
pub(crate) fn service(tables: &Memory) -> &Service {
    &tables.services[&INDEX]
}

/// Forgets what has ended, as the agent's janitor does.
pub(crate) fn forget(tables: &Memory) {
    let (now, service) = (tables.tick.get(), service(tables));
    let idle_ticks = service.idle_ticks;
    tables.flows.borrow_mut().retain(|_, flow| {
        let over = forgettable(flow, idle_ticks, now);
        if over && flow.state & flow_state::COUNTED != 0 {
            tables.count_connection(flow.backend, false);
        }
        !over
    });
    let mut forward = tables.nat_forward.borrow_mut();
    tables.nat_return.borrow_mut().retain(|key, flow| {
        let over = full_nat::forgettable(flow, idle_ticks, now);
        if over {
            forward.remove(&full_nat::forward_key(service, key, flow));
        }
        if over && flow.state & nat_state::COUNTED != 0 {
            tables.count_connection(flow.backend, false);
        }
        !over
    });
}

/// Connections that are counted for each backend, and those that its flows say it has.
pub(crate) fn counts(tables: &Memory) -> [BTreeMap<u32, u64>; 2] {
    let mut counted = tables.connections.borrow().clone();
    counted.retain(|_, count| *count > 0);
    let mut kept = BTreeMap::new();
    for flow in tables.flows.borrow().values() {
        if flow.state & flow_state::COUNTED != 0 {
            *kept.entry(flow.backend).or_default() += 1;
        }
    }
    for flow in tables.nat_return.borrow().values() {
        if flow.state & nat_state::COUNTED != 0 {
            *kept.entry(flow.backend).or_default() += 1;
        }
    }
    [counted, kept]
}
