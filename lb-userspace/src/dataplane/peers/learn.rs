//! From records to this node's tables.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    abi::{Affinity, AffinityKey, Flow, FlowKey, NatForward, NatReturn},
    full_nat::forward_key,
    selection::age,
};

use super::super::{
    State,
    address::{endpoint_key, flow_key, to_abi},
    batch,
    janitor::Janitor,
};
use crate::ha::sync::record::Record;

/// Puts this node's indexes and ids in the place of addresses.
pub(super) struct Learner<'a> {
    state: &'a mut State,
    janitor: &'a Janitor,
    now: u32,
}

impl<'a> Learner<'a> {
    pub(super) fn new(state: &'a mut State, janitor: &'a Janitor, now: u32) -> Self {
        Self {
            state,
            janitor,
            now,
        }
    }

    /// Remembers what a record says, unless what is remembered has been seen later. False where
    /// it names a service or backend that this node does not have, or not yet.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn take(&mut self, record: &Record) -> io::Result<bool> {
        let (Record::Flow { vip, .. }
        | Record::Translation { vip, .. }
        | Record::Affinity { vip, .. }
        | Record::Slot { vip, .. }) = record;
        let key = endpoint_key(vip.address, vip.protocol);
        let found = self.state.applied.services.find(&key);
        let Some((name, index)) = found.map(|(name, found)| (name.to_owned(), found.index)) else {
            return Ok(false);
        };
        let backend = |address: SocketAddr| self.state.applied.backend_at(&name, address);
        match *record {
            Record::Flow {
                vip,
                client,
                backend: at,
                idle,
                state,
            } => {
                let Some(backend) = backend(at) else {
                    return Ok(false);
                };
                let flow = Flow {
                    backend,
                    service: index,
                    last_seen: self.now.wrapping_sub(idle),
                    state,
                    reserved: [0; 3],
                };
                let key = flow_key(client, vip.address, vip.protocol);
                self.flow(&key, &flow, idle)?;
                let hashed_ports = self.janitor.services.read(index).hashed_ports;
                let hash = self.janitor.hash_key.of(&key, hashed_ports);
                if let Some(ring) = self.state.applied.rings.get_mut(&name) {
                    ring.find(hash, backend, self.now);
                }
            }
            Record::Translation {
                vip,
                client,
                backend: at,
                source,
                idle,
                age,
                state,
            } => {
                let Some(backend) = backend(at) else {
                    return Ok(false);
                };
                let Some(source_index) = self.state.applied.source_index(source.ip()) else {
                    return Ok(true);
                };
                let entry = NatReturn {
                    client: to_abi(client.ip()).0,
                    service: index,
                    backend,
                    last_seen: self.now.wrapping_sub(idle),
                    created: self.now.wrapping_sub(age),
                    client_port: client.port().to_be(),
                    state,
                    reserved: 0,
                    source_index,
                };
                let key = flow_key(at, source, vip.protocol);
                self.translation(&key, &entry, idle)?;
            }
            Record::Affinity {
                client,
                backend: at,
                idle,
                ..
            } => match backend(at) {
                Some(backend) => self.affinity(client, index, backend, idle)?,
                None => return Ok(false),
            },
            Record::Slot {
                log2_slots,
                slot,
                base,
                tracked_for,
                ..
            } => {
                let base = match base.map(backend) {
                    // It is gone, and so are its flows.
                    Some(None) => return Ok(true),
                    Some(Some(id)) => id,
                    None => 0,
                };
                let since = self.now.wrapping_sub(tracked_for);
                if let Some(ring) = self.state.applied.rings.get_mut(&name) {
                    ring.adopt(u32::from(log2_slots), slot, base, since);
                }
            }
        }
        Ok(true)
    }

    fn flow(&self, key: &FlowKey, flow: &Flow, idle: u32) -> io::Result<()> {
        let known: Option<Flow> = batch::lookup(self.janitor.flows.fd(), key)?;
        let is_news = known.is_none_or(|known| {
            known.service != flow.service || age(self.now, known.last_seen) > idle
        });
        if !is_news {
            return Ok(());
        }
        if known.is_none() {
            self.janitor.learn(1);
        }
        batch::update(self.janitor.flows.fd(), &[*key], &[*flow])
    }

    fn translation(&self, key: &FlowKey, entry: &NatReturn, idle: u32) -> io::Result<()> {
        let known: Option<NatReturn> = batch::lookup(self.janitor.nat_return.fd(), key)?;
        let services = &self.janitor.services;
        if let Some(known) = known {
            if age(self.now, known.last_seen) <= idle {
                return Ok(());
            }
            if (known.client, known.client_port) != (entry.client, entry.client_port)
                && known.service < services.entries()
            {
                let service = services.read(known.service);
                self.janitor.forget_forward_of(&service, key, &known)?;
            }
        }
        let forward = NatForward {
            backend: entry.backend,
            source_index: entry.source_index,
            last_seen: entry.last_seen,
            source_port: key.destination_port,
            reserved: 0,
        };
        let client = forward_key(&services.read(entry.service), key, entry);
        batch::update(self.janitor.nat_return.fd(), &[*key], &[*entry])?;
        batch::update(self.janitor.nat_forward.fd(), &[client], &[forward])
    }

    fn affinity(&self, client: IpAddr, service: u32, backend: u32, idle: u32) -> io::Result<()> {
        let (client, family) = to_abi(client);
        let key = AffinityKey {
            client,
            service,
            family,
            reserved: [0; 3],
        };
        let known: Option<Affinity> = batch::lookup(self.janitor.affinities.fd(), &key)?;
        if known.is_some_and(|known| age(self.now, known.last_seen) <= idle) {
            return Ok(());
        }
        let last_seen = self.now.wrapping_sub(idle);
        let affinity = Affinity { backend, last_seen };
        batch::update(self.janitor.affinities.fd(), &[key], &[affinity])
    }
}
