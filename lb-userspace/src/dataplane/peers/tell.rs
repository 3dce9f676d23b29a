//! From this node's tables to records.

use std::net::SocketAddr;

use lb_common::{
    abi::{
        FlowKey, Service, Told,
        told::{AFFINITY, FLOW, TRANSLATION},
    },
    selection::age,
};

use super::super::{
    State,
    address::{endpoint, from_abi},
    entries::Entry,
    janitor::Janitor,
};
use crate::ha::sync::record::{Record, Vip};

/// Puts addresses in the place of this node's indexes and ids.
pub(super) struct Teller<'a> {
    state: &'a State,
    janitor: &'a Janitor,
}

impl<'a> Teller<'a> {
    pub(super) fn new(state: &'a State, janitor: &'a Janitor) -> Self {
        Self { state, janitor }
    }

    fn service(&self, index: u32) -> Option<Vip> {
        let services = &self.janitor.services;
        let service = (index < services.entries()).then(|| services.read(index))?;
        vip(&service)
    }

    fn backend(&self, id: u32) -> Option<SocketAddr> {
        let key = self.state.applied.backends.find(id)?;
        Some(SocketAddr::new(key.address, key.port))
    }

    /// What the packet path has told; `None` where it is of what is no more.
    pub(super) fn told(&self, told: &Told) -> Option<Record> {
        let key = &told.key;
        let backend = self.backend(told.backend)?;
        match told.kind {
            FLOW => Some(Record::Flow {
                vip: of_flow(key),
                client: client(key),
                backend,
                idle: 0,
                state: told.state,
            }),
            TRANSLATION => Some(Record::Translation {
                vip: of_flow(key),
                client: client(key),
                backend,
                source: SocketAddr::new(
                    self.state.applied.source(told.index)?,
                    u16::from_be(told.source_port),
                ),
                idle: 0,
                age: 0,
                state: 0,
            }),
            AFFINITY => Some(Record::Affinity {
                vip: self.service(told.index)?,
                client: from_abi(key.source, key.family),
                backend,
                idle: 0,
            }),
            _ => None,
        }
    }

    /// An entry; `None` where it is of what is no more.
    pub(super) fn entry(&self, entry: &Entry, now: u32) -> Option<Record> {
        match entry {
            Entry::Flow(key, flow) => Some(Record::Flow {
                vip: of_flow(key),
                client: client(key),
                backend: self.backend(flow.backend)?,
                idle: age(now, flow.last_seen),
                state: flow.state,
            }),
            Entry::Translation(key, flow) => Some(Record::Translation {
                vip: self.service(flow.service)?,
                client: endpoint(flow.client, key.family, flow.client_port),
                backend: client(key),
                source: of_flow(key).address,
                idle: age(now, flow.last_seen),
                age: age(now, flow.created),
                state: flow.state,
            }),
            Entry::Affinity(key, affinity) => Some(Record::Affinity {
                vip: self.service(key.service)?,
                client: from_abi(key.client, key.family),
                backend: self.backend(affinity.backend)?,
                idle: age(now, affinity.last_seen),
            }),
        }
    }

    /// The slots that changes have moved.
    pub(super) fn slots(&self, now: u32) -> Vec<Record> {
        let applied = &self.state.applied;
        let mut records = Vec::new();
        for (name, service) in applied.services.iter() {
            let Some((vip, ring)) = self.service(service.index).zip(applied.rings.get(name)) else {
                continue;
            };
            let log2_slots = ring.log2_slots() as u8;
            records.extend(ring.moved().map(|(slot, word, since)| Record::Slot {
                vip,
                log2_slots,
                slot: slot as u32,
                base: self.backend(word.base()),
                tracked_for: age(now, since),
            }));
        }
        records
    }
}

/// Whom a packet with this key is to.
fn of_flow(key: &FlowKey) -> Vip {
    Vip {
        address: endpoint(key.destination, key.family, key.destination_port),
        protocol: key.protocol,
    }
}

/// Whom a packet with this key is from.
fn client(key: &FlowKey) -> SocketAddr {
    endpoint(key.source, key.family, key.source_port)
}

fn vip(service: &Service) -> Option<Vip> {
    (service.family != 0).then(|| Vip {
        address: endpoint(service.address, service.family, service.port),
        protocol: service.protocol,
    })
}
