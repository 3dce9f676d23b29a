//! The service, its backends and its clients.

use std::{cell::RefCell, collections::BTreeMap};

use etherparse::PacketBuilder;
use lb_common::{
    abi::{
        Address, Backend, Flow, IPV4, NextHop, Service, ServiceKey, algorithm, backend_flags,
        flow_state, mode, ring_word, service_flags,
    },
    hash::HashKey,
    maglev::{self, Member},
    memory::Memory,
    packet::{TCP, ipv4_address, tcp_flags},
    ring::{Remember, Ring},
    selection::forgettable,
    slot::Slot,
    steer::{Verdict, steer},
};
use proptest::{prelude::*, sample::Index, test_runner::TestCaseError};

/// The service's idle timeout.
pub(crate) const IDLE_TICKS: u32 = 100;

const VIP: [u8; 4] = [192, 0, 2, 1];
/// The first client's port.
const CLIENT_PORTS: u16 = 10_000;
const KEY: HashKey = HashKey([0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321]);
/// The service's index.
const INDEX: u32 = 1;

type Outcome = Result<(), TestCaseError>;

/// What a service does that the schedule does not change.
#[derive(Clone, Copy)]
pub(crate) struct Policy {
    /// Connections of the dead go on elsewhere.
    pub(crate) silent: bool,
    /// Clients keep their backend.
    pub(crate) affinity: bool,
}

#[derive(Clone, Copy)]
struct Server {
    weight: u32,
    dead: bool,
    draining: bool,
    removed: bool,
}

impl Server {
    fn takes_flows(&self) -> bool {
        !self.dead && !self.draining && !self.removed
    }
}

/// A connection as its client sees it.
#[derive(Clone, Copy)]
struct Connection {
    client: u16,
    backend: u32,
    spoke: u32,
    /// The client has heard from the backend.
    established: bool,
    /// Its backend died at some time: nothing is promised any more.
    lost: bool,
    /// The client has sent its FIN.
    closing: bool,
}

/// Everything.
pub(crate) struct World {
    policy: Policy,
    algorithm: u8,
    servers: BTreeMap<u32, Server>,
    connections: Vec<Connection>,
    ring: Ring,
    /// Slots that its backends need.
    table: usize,
    tables: Memory,
}

impl World {
    /// A service with so many backends.
    pub(crate) fn new(backends: usize, policy: Policy) -> Self {
        let remember = if policy.affinity {
            Remember::Always
        } else {
            Remember::Changes
        };
        let mut world = Self {
            policy,
            algorithm: algorithm::HASH,
            servers: BTreeMap::new(),
            connections: Vec::new(),
            ring: Ring::new(&[0], remember, 0),
            table: 1,
            tables: Memory::new(KEY),
        };
        for _ in 0..backends {
            world.add();
        }
        world
    }

    /// A new connection, in the place of one that has the same numbers.
    pub(crate) fn open(&mut self, client: u16) -> Outcome {
        self.connections.retain(|old| old.client != client);
        self.syn(client)
    }

    /// The SYN of a connection that has not heard from its backend, again.
    pub(crate) fn repeat_syn(&mut self, which: Index) -> Outcome {
        let half_open = self.pick(which, |connection| !connection.established);
        let Some(place) = half_open else {
            return Ok(());
        };
        let connection = self.connections.remove(place);
        self.syn(connection.client)
    }

    fn syn(&mut self, client: u16) -> Outcome {
        let port = (CLIENT_PORTS + client).to_be();
        let repeated =
            self.tables.flows.borrow().iter().any(|(key, flow)| {
                key.source_port == port && flow.state & flow_state::OPENING != 0
            });
        match self.send(client, tcp_flags::SYN) {
            Sent::To(backend) => {
                let server = self.servers[&backend];
                prop_assert!(!server.dead, "a SYN to the dead backend {backend}");
                // Only what looks like a repeated SYN may still find its backend draining.
                prop_assert!(
                    repeated || server.takes_flows(),
                    "a SYN to backend {backend}"
                );
                self.connections.push(Connection {
                    client,
                    backend,
                    spoke: self.now(),
                    established: false,
                    lost: false,
                    closing: false,
                });
            }
            sent => {
                let anybody = self.servers.values().any(Server::takes_flows);
                prop_assert!(!anybody, "a SYN was stopped: {sent:?}");
            }
        }
        Ok(())
    }

    /// A packet of a connection.
    pub(crate) fn speak(&mut self, which: Index) -> Outcome {
        match self.pick(which, |_| true) {
            Some(place) => self.say(place, tcp_flags::ACK),
            None => Ok(()),
        }
    }

    /// Its FIN; what it says afterwards still has to arrive.
    pub(crate) fn close(&mut self, which: Index) -> Outcome {
        match self.pick(which, |connection| !connection.closing) {
            Some(place) => {
                self.connections[place].closing = true;
                self.say(place, tcp_flags::ACK | tcp_flags::FIN)
            }
            None => Ok(()),
        }
    }

    /// Everybody who lives speaks once more.
    pub(crate) fn end(&mut self) -> Outcome {
        for place in (0..self.connections.len()).rev() {
            self.say(place, tcp_flags::ACK)?;
        }
        Ok(())
    }

    fn say(&mut self, place: usize, flags: u8) -> Outcome {
        let connection = self.connections[place];
        let sent = self.send(connection.client, flags);
        if connection.lost {
            self.connections.remove(place);
            return Ok(());
        }
        match sent {
            Sent::To(backend) => prop_assert_eq!(backend, connection.backend),
            sent => prop_assert!(false, "{sent:?}, but backend {} lives", connection.backend),
        }
        let now = self.now();
        let connection = &mut self.connections[place];
        connection.spoke = now;
        connection.established = true;
        Ok(())
    }

    /// Time passes; connections idle for too long are nobody's concern, nor are those that
    /// have closed and fallen silent.
    pub(crate) fn wait(&mut self, ticks: u32) {
        self.tables.tick.set(self.now() + ticks);
        let now = self.now();
        self.connections.retain(|connection| {
            let limit = match connection.closing {
                true => lb_common::full_nat::LINGER_TICKS.min(IDLE_TICKS),
                false => IDLE_TICKS,
            };
            now - connection.spoke < limit
        });
    }

    /// The agent's janitor.
    pub(crate) fn tidy(&mut self) {
        let now = self.now();
        self.tables
            .flows
            .borrow_mut()
            .retain(|_, flow| !forgettable(flow, IDLE_TICKS, now));
        let slots = RefCell::new(written(&mut self.tables.rings));
        let write = |index: usize, slot| slots.borrow_mut()[index] = slot;
        self.ring.settle(IDLE_TICKS, now, write);
        let mask = self.ring.slots().len() as u64 - 1;
        let mut elsewhere = vec![false; self.ring.slots().len()];
        for (key, flow) in self.tables.flows.borrow().iter() {
            let index = (KEY.of(key, u32::MAX) & mask) as usize;
            elsewhere[index] |= flow.backend != self.ring.slots()[index].current();
        }
        self.ring.release(|index| elsewhere[index], write);
        if let Some(ring) = self.ring.shrunk(self.table) {
            *written(&mut self.tables.rings) = ring.slots().to_vec();
            self.ring = ring;
            self.publish();
        }
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

    /// Another algorithm on the live service.
    pub(crate) fn set_algorithm(&mut self, number: u8) {
        self.algorithm = number;
        let always = self.policy.affinity || number != algorithm::HASH;
        let remember = if always {
            Remember::Always
        } else {
            Remember::Changes
        };
        let (now, slots) = (self.now(), written(&mut self.tables.rings));
        self.ring
            .set_remember(remember, now, |index, slot| slots[index] = slot);
        self.publish();
    }

    fn change(&mut self, which: Index, change: impl FnOnce(&mut Server)) {
        let ids: Vec<u32> = self.servers.keys().copied().collect();
        if let Some(server) = self.servers.get_mut(which.get(&ids)) {
            change(server);
        }
        self.rebuild();
    }

    /// What the agent does after each change: backends first, then the slots.
    fn rebuild(&mut self) {
        self.publish();
        let members: Vec<Member> = (self.servers.iter())
            .filter(|(_, server)| server.takes_flows())
            .map(|(&id, server)| Member {
                key: u64::from(id) << 20,
                id,
                weight: server.weight,
            })
            .collect();
        let slots = self.ring.slots().len();
        let owners = maglev::build(&members, maglev::log2_slots(members.len()));
        self.table = owners.len();
        let now = self.now();
        if owners.len() > slots {
            self.ring = self.ring.grown(&owners, now);
            *written(&mut self.tables.rings) = self.ring.slots().to_vec();
        } else {
            let slots = written(&mut self.tables.rings);
            self.ring
                .change(&owners, now, |index, slot| slots[index] = slot);
        }
        if self.policy.silent {
            let (servers, slots) = (&self.servers, written(&mut self.tables.rings));
            let dead = |id: u32| servers.get(&id).is_some_and(|server| server.dead);
            self.ring.bury(dead, |index, slot| slots[index] = slot);
        }
        self.publish();
        assert_eq!(
            *written(&mut self.tables.rings),
            self.ring.slots(),
            "every change was written"
        );
    }

    fn publish(&mut self) {
        let service = Service {
            ring: ring_word(0, self.ring.slots().len().trailing_zeros()),
            address: address(VIP),
            port: 80u16.to_be(),
            protocol: TCP,
            family: IPV4,
            mode: mode::DSR,
            algorithm: self.algorithm,
            flags: if self.policy.silent {
                service_flags::DIE_SILENTLY
            } else {
                0
            },
            reserved: 0,
            source_first: 0,
            source_count: 0,
            port_first: 0,
            port_last: 0,
            idle_ticks: IDLE_TICKS,
            hashed_ports: u32::MAX,
            affinity_ticks: if self.policy.affinity { 30 } else { 0 },
            reserved2: [0; 2],
        };
        let key = ServiceKey {
            address: service.address,
            port: service.port,
            protocol: service.protocol,
            family: service.family,
            reserved: 0,
        };
        self.tables.keys.insert(key, INDEX);
        self.tables.services.insert(INDEX, service);
        for (&id, server) in &self.servers {
            let alive = if server.takes_flows() {
                backend_flags::ALIVE
            } else {
                0
            };
            let dead = if server.dead { backend_flags::DEAD } else { 0 };
            let backend = Backend {
                next_hop: NextHop {
                    destination: u64::from(id),
                    source: 0,
                    ifindex: 2,
                    mtu: 0,
                },
                address: address([10, 0, 0, id as u8]),
                port: 80u16.to_be(),
                family: IPV4,
                flags: alive | dead,
                weight: server.weight,
                reserved: [0; 4],
            };
            self.tables.backends.insert(id, backend);
        }
    }

    fn pick(&self, which: Index, wanted: impl Fn(&Connection) -> bool) -> Option<usize> {
        let places: Vec<usize> = (0..self.connections.len())
            .filter(|&place| wanted(&self.connections[place]))
            .collect();
        (!places.is_empty()).then(|| *which.get(&places))
    }

    fn send(&self, client: u16, flags: u8) -> Sent {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([198, 51, 100, 7], VIP, 64);
        let mut tcp = builder.tcp(CLIENT_PORTS + client, 80, 1, 1000);
        if flags & tcp_flags::SYN != 0 {
            tcp = tcp.syn();
        }
        if flags & tcp_flags::FIN != 0 {
            tcp = tcp.fin();
        }
        if flags & tcp_flags::ACK != 0 {
            tcp = tcp.ack(1);
        }
        let mut frame = Vec::new();
        tcp.write(&mut frame, b"data").expect("writing to memory");
        let counted = || {
            let flows = self.tables.flows.borrow();
            let counted = |flow: &&Flow| flow.state & flow_state::COUNTED != 0;
            flows.values().filter(counted).count()
        };
        let before = counted();
        let verdict = steer(&mut frame, &self.tables);
        assert!(
            counted() <= before || self.algorithm == algorithm::LEAST_CONNECTIONS,
            "only least connections counts them"
        );
        match verdict {
            Verdict::Send(_) => Sent::To(u32::from(frame[0])),
            verdict => Sent::Not(verdict),
        }
    }

    fn now(&self) -> u32 {
        self.tables.tick.get()
    }
}

#[derive(Debug)]
enum Sent {
    To(u32),
    #[expect(dead_code, reason = "shown where an assertion fails")]
    Not(Verdict),
}

/// The slots as the packets find them.
fn written(rings: &mut BTreeMap<u32, Vec<Slot>>) -> &mut Vec<Slot> {
    rings.entry(0).or_insert_with(|| vec![Slot::default()])
}

fn address(bytes: [u8; 4]) -> Address {
    ipv4_address(u32::from_ne_bytes(bytes))
}
