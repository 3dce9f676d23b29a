//! The service and its backends, and what the agent does to them.

use std::{cell::RefCell, collections::BTreeMap};

use lb_common::{
    abi::{
        Backend, IPV4, NextHop, Service, ServiceKey, algorithm, backend_flags, mode, ring_word,
        service_flags,
    },
    maglev::{self, Member},
    memory::Memory,
    packet::{TCP, UDP, ipv4_address},
    ring::{Remember, Ring},
};
use proptest::{prelude::*, sample::Index, test_runner::TestCaseError};

use crate::{
    clients::Connection,
    memory::{self, KEY},
    wire,
};

/// The service's idle timeout.
pub(crate) const IDLE_TICKS: u32 = 100;
/// How many algorithms there are to choose from.
pub(crate) const ALGORITHMS: u8 = 5;

pub(crate) type Outcome = Result<(), TestCaseError>;

/// What a service does that the schedule does not change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// Connections of the dead go on elsewhere.
    pub(crate) silent: bool,
    /// UDP, every flow of which is remembered.
    pub(crate) udp: bool,
    /// `full-nat`, or else `nat`.
    pub(crate) full_nat: bool,
}

impl Policy {
    /// TCP, whose connections are reset when their backend dies.
    pub(crate) const fn of(full_nat: bool) -> Self {
        Self {
            silent: false,
            udp: false,
            full_nat,
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Server {
    weight: u32,
    pub(crate) dead: bool,
    draining: bool,
    removed: bool,
}

impl Server {
    pub(crate) fn takes_flows(&self) -> bool {
        !self.dead && !self.draining && !self.removed && self.weight > 0
    }
}

/// Everything.
pub(crate) struct World {
    pub(crate) policy: Policy,
    algorithm: u8,
    affinity: bool,
    hashed_ports: u32,
    base_hashed_ports: u32,
    pub(crate) servers: BTreeMap<u32, Server>,
    pub(crate) connections: Vec<Connection>,
    ring: Ring,
    /// Slots that its backends need.
    table: usize,
    pub(crate) tables: Memory,
}

impl World {
    /// A service with so many backends.
    pub(crate) fn new(backends: usize, policy: Policy) -> Self {
        let mut world = Self {
            policy,
            algorithm: algorithm::HASH,
            affinity: false,
            hashed_ports: u32::MAX,
            base_hashed_ports: u32::MAX,
            servers: BTreeMap::new(),
            connections: Vec::new(),
            ring: Ring::new(&[0], Remember::Never, 0),
            table: 1,
            tables: memory::new(),
        };
        world.ring = Ring::new(&[0], world.remember(), 0);
        *memory::slots(&mut world.tables) = world.ring.slots().to_vec();
        world.publish();
        for _ in 0..backends {
            world.add();
        }
        world
    }

    /// The agent's janitor.
    pub(crate) fn tidy(&mut self) {
        let now = self.now();
        memory::forget(&self.tables);
        let mask = self.ring.slots().len() as u64 - 1;
        let mut elsewhere = vec![false; self.ring.slots().len()];
        let flows = self.tables.flows.borrow().clone();
        let slots = RefCell::new(memory::slots(&mut self.tables));
        let write = |index: usize, slot| slots.borrow_mut()[index] = slot;
        self.ring.settle(IDLE_TICKS, now, write);
        for (key, flow) in &flows {
            let index = (KEY.of(key, self.hashed_ports) & mask) as usize;
            elsewhere[index] |= flow.backend != self.ring.slots()[index].current();
        }
        self.ring.release(|index| elsewhere[index], write);
        if let Some(ring) = self.ring.shrunk(self.table) {
            *memory::slots(&mut self.tables) = ring.slots().to_vec();
            self.ring = ring;
        }
        self.end_rehash();
        self.publish();
    }

    /// Another backend.
    pub(crate) fn add(&mut self) {
        let id = self.servers.len() as u32 + 1;
        let server = Server {
            weight: 100,
            dead: false,
            draining: false,
            removed: false,
        };
        self.servers.insert(id, server);
        self.rebuild();
    }

    /// Another weight.
    pub(crate) fn weigh(&mut self, which: Index, weight: u32) {
        self.change(which, |server| server.weight = weight);
    }

    /// Draining, or not any more.
    pub(crate) fn drain(&mut self, which: Index, draining: bool) {
        self.change(which, |server| server.draining = draining);
    }

    /// Out of the configuration; its flows stay.
    pub(crate) fn remove(&mut self, which: Index) {
        self.change(which, |server| server.removed = true);
    }

    /// Death; its flows are lost.
    pub(crate) fn die(&mut self, which: Index) {
        let id = *which.get(&self.servers.keys().copied().collect::<Vec<_>>());
        self.change(which, |server| server.dead = true);
        for connection in &mut self.connections {
            connection.lost |= connection.backend == id;
        }
    }

    /// Back from the dead.
    pub(crate) fn come_back(&mut self, which: Index) {
        self.change(which, |server| server.dead = false);
    }

    /// Another algorithm on the live service: those of `abi`, and then `source-hash`.
    pub(crate) fn set_algorithm(&mut self, number: u8) {
        (self.algorithm, self.hashed_ports) = match number {
            4.. => (algorithm::HASH, 0),
            _ => (number, u32::MAX),
        };
        self.rebuild();
    }

    /// Clients keep their backends from now on, or not any more.
    pub(crate) fn set_affinity(&mut self, affinity: bool) {
        self.affinity = affinity;
        self.rebuild();
    }

    fn remember(&self) -> Remember {
        match self.policy {
            Policy { full_nat: true, .. } => Remember::Never,
            Policy { udp: true, .. } => Remember::Always,
            _ if self.affinity || self.algorithm != algorithm::HASH => Remember::Always,
            _ => Remember::Changes,
        }
    }

    fn change(&mut self, which: Index, change: impl FnOnce(&mut Server)) {
        let ids: Vec<u32> = self.servers.keys().copied().collect();
        if let Some(server) = self.servers.get_mut(which.get(&ids)) {
            change(server);
        }
        self.rebuild();
    }

    /// What the agent does at each change: backends first, then the slots, then the service.
    fn rebuild(&mut self) {
        self.publish_backends();
        let members: Vec<Member> = (self.servers.iter())
            .filter(|(_, server)| server.takes_flows())
            .map(|(&id, server)| Member {
                key: u64::from(id) << 20,
                id,
                weight: server.weight,
            })
            .collect();
        let slots = self.ring.slots().len();
        let log2 = maglev::log2_slots(members.len());
        let owners = match self.algorithm {
            algorithm::ROUND_ROBIN => maglev::in_turns(&members, log2),
            _ => maglev::build(&members, log2),
        };
        self.table = owners.len();
        let (now, remember) = (self.now(), self.remember());
        if owners.len() > slots {
            self.ring = self.ring.grown(&owners, now);
            *memory::slots(&mut self.tables) = self.ring.slots().to_vec();
        }
        let hash_changes = memory::service(&self.tables).hashed_ports != self.hashed_ports;
        let written = RefCell::new(memory::slots(&mut self.tables));
        let write = |index: usize, slot| written.borrow_mut()[index] = slot;
        self.ring.set_remember(remember, now, write);
        if hash_changes {
            self.ring.rehash(now, write);
        }
        self.ring.change(&owners, now, write);
        if self.policy.silent {
            let servers = &self.servers;
            let dead = |id: u32| servers.get(&id).is_some_and(|server| server.dead);
            self.ring.bury(dead, write);
        }
        self.end_rehash();
        self.publish();
        assert_eq!(
            *memory::slots(&mut self.tables),
            self.ring.slots(),
            "every change was written"
        );
    }

    fn end_rehash(&mut self) {
        if !self.ring.is_rehashed() {
            self.base_hashed_ports = self.hashed_ports;
        }
    }

    fn publish(&mut self) {
        let silent = match self.policy.silent {
            true => service_flags::DIE_SILENTLY,
            false => 0,
        };
        let service = Service {
            ring: ring_word(0, self.ring.slots().len().trailing_zeros()),
            address: ipv4_address(u32::from_ne_bytes(wire::VIP)),
            port: wire::PORT.to_be(),
            protocol: self.protocol(),
            family: IPV4,
            mode: if self.policy.full_nat {
                mode::FULL_NAT
            } else {
                mode::NAT
            },
            algorithm: self.algorithm,
            flags: silent,
            reserved: 0,
            source_first: 0,
            source_count: self.tables.sources.len() as u32,
            port_first: 1024,
            port_last: 5119,
            idle_ticks: IDLE_TICKS,
            hashed_ports: self.hashed_ports,
            affinity_ticks: if self.affinity { 30 } else { 0 },
            base_hashed_ports: self.base_hashed_ports,
            reserved2: 0,
        };
        memory::publish(&mut self.tables, service);
    }

    fn protocol(&self) -> u8 {
        if self.policy.udp { UDP } else { TCP }
    }

    fn publish_backends(&mut self) {
        for (&id, server) in &self.servers {
            let alive = match server.takes_flows() {
                true => backend_flags::ALIVE,
                false => 0,
            };
            let dead = if server.dead { backend_flags::DEAD } else { 0 };
            let backend = Backend {
                next_hop: NextHop {
                    destination: u64::from(id),
                    source: 0,
                    ifindex: wire::BACKEND_SIDE,
                    mtu: 0,
                    device: 0,
                },
                address: ipv4_address(u32::from_ne_bytes(wire::backend(id))),
                port: wire::PORT.to_be(),
                family: IPV4,
                flags: alive | dead,
                weight: server.weight,
                reserved: [0; 4],
            };
            self.tables.backends.insert(id, backend);
            let key = ServiceKey {
                address: backend.address,
                port: backend.port,
                protocol: self.protocol(),
                family: IPV4,
                reserved: 0,
            };
            if !self.policy.full_nat {
                memory::publish_return(&mut self.tables, key);
            }
        }
    }

    /// What must hold at any time: the connections that are counted are those that there are.
    pub(crate) fn check(&self) -> Outcome {
        let [counted, kept] = memory::counts(&self.tables);
        prop_assert_eq!(counted, kept);
        Ok(())
    }

    pub(crate) fn now(&self) -> u32 {
        self.tables.tick.get()
    }
}
