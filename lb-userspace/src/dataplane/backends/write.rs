//! Making the map say what a pool's backends are to be.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lb_common::{
    abi::{self, Backend, IPV6, backend_flags},
    hash::HashKey,
};

use super::{BackendKey, Backends, Known, Members};
use crate::{
    dataplane::{address::to_abi, loader::Maps, next_hops::NextHops, pins::mark},
    desired::{Condition, DesiredBackend, DesiredPool},
};

/// Beyond the idle timeout, for clocks and the janitor's passes.
const MARGIN: Duration = Duration::from_secs(15);

/// What a change of a pool's backends did.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Whether the rings made of them, or the dead among them, may be others now.
    pub(crate) changed: bool,
    /// Address and port of those that were not there before.
    pub(crate) joined: Vec<(IpAddr, u16)>,
    /// Ids of those that no agent has had before.
    pub(crate) new: Vec<u32>,
}

/// What writing needs beside the backends.
pub(crate) struct Writing<'a> {
    pub(crate) maps: &'a mut Maps,
    pub(crate) next_hops: &'a NextHops,
    pub(crate) now: Instant,
    /// For how long the removed may have flows.
    pub(crate) longest_idle: Duration,
}

impl Backends {
    /// Makes a pool's backends what they are to be. What goes keeps its flows for a while, and
    /// gets no more.
    ///
    /// # Errors
    ///
    /// The kernel's; `outcome` holds what was done before.
    pub(crate) fn write(
        &mut self,
        to: &mut Writing<'_>,
        pool: &str,
        desired: &DesiredPool,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let (pool, mut members) = match self.pools.remove_entry(pool) {
            Some(found) => found,
            None => (Arc::from(pool), Members::default()),
        };
        outcome.changed |= self.retire(to, &mut members, desired);
        let result = desired.iter().try_for_each(|(name, backend)| {
            match members.live.get(name.as_str()) {
                Some(&id) => outcome.changed |= self.rewrite(to, id, backend),
                None => {
                    self.adopt(to, &pool, &mut members, (name, backend), outcome)?;
                    outcome.changed = true;
                }
            }
            Ok(())
        });
        if !members.live.is_empty() || !members.retired.is_empty() {
            self.pools.insert(pool, members);
        }
        result
    }

    /// Moves those that are not desired aside; whether there were any.
    fn retire(
        &mut self,
        to: &mut Writing<'_>,
        members: &mut Members,
        desired: &DesiredPool,
    ) -> bool {
        let by_id = &self.by_id;
        let stays = |name: &str, id: &u32| {
            let wanted = desired
                .get(name)
                .map(|wanted| (wanted.address, wanted.port));
            let known = by_id.get(id);
            known.is_some_and(|known| wanted == Some((known.key.address, known.key.port)))
        };
        let gone: Vec<u32> = members
            .live
            .extract_if(.., |name, id| !stays(name, id))
            .map(|(_, id)| id)
            .collect();
        for &id in &gone {
            let mut entry = to.maps.backends.read(id);
            entry.flags &= !backend_flags::ALIVE;
            to.maps.backends.write(id, &entry);
            if let Some(Known { key, .. }) = self.by_id.get(&id) {
                let endpoint = (key.name.clone(), key.address, key.port);
                members.retired.insert(endpoint, id);
            }
            self.retired.insert(id, to.now + to.longest_idle + MARGIN);
        }
        !gone.is_empty()
    }

    /// A backend that is new, or was removed a short while ago.
    fn adopt(
        &mut self,
        to: &mut Writing<'_>,
        pool: &Arc<str>,
        members: &mut Members,
        (name, backend): (&str, &DesiredBackend),
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let id = match self.id_of(members, name, backend) {
            Some(id) => {
                let endpoint = (Arc::from(name), backend.address, backend.port);
                members.retired.remove(&endpoint);
                self.retired.remove(&id);
                id
            }
            None => {
                let mark = mark(pool, name, backend.address, backend.port);
                let id = match self.take_inherited(mark) {
                    Some(id) => id,
                    None => {
                        let (id, used) = self.ids.take(to.now).context("no backend id is left")?;
                        if used && let Err(error) = to.maps.reset_backend_counters(id) {
                            self.ids.give_back(id, to.now, Duration::ZERO);
                            return Err(error).context("BACKEND_COUNTERS");
                        }
                        outcome.new.push(id);
                        id
                    }
                };
                let key = BackendKey {
                    pool: pool.clone(),
                    name: Arc::from(name),
                    address: backend.address,
                    port: backend.port,
                };
                let known = Known {
                    identity: identity(&key),
                    mark,
                    key,
                    weight: backend.weight,
                    condition: backend.condition,
                };
                self.by_id.insert(id, known);
                let there = self.by_address.entry(backend.address).or_default();
                if there.is_empty() {
                    self.moved.insert(backend.address);
                }
                there.push(id);
                outcome.joined.push((backend.address, backend.port));
                id
            }
        };
        if let Some(known) = self.by_id.get(&id) {
            members.live.insert(known.key.name.clone(), id);
        }
        self.put(to, id, backend);
        Ok(())
    }

    /// Writes one that was there already, if it changes; whether it does.
    fn rewrite(&mut self, to: &mut Writing<'_>, id: u32, backend: &DesiredBackend) -> bool {
        let known = self.by_id.get(&id);
        let same = known.is_some_and(|known| {
            (known.weight, known.condition) == (backend.weight, backend.condition)
        });
        if !same {
            self.put(to, id, backend);
        }
        !same
    }

    fn put(&mut self, to: &mut Writing<'_>, id: u32, backend: &DesiredBackend) {
        if let Some(known) = self.by_id.get_mut(&id) {
            (known.weight, known.condition) = (backend.weight, backend.condition);
            to.maps
                .backends
                .write(id, &entry(known, backend, to.next_hops));
        }
        match backend.condition {
            Condition::Dead | Condition::Absent => self.dead.insert(id),
            _ => self.dead.remove(&id),
        };
        match backend.condition {
            Condition::Absent => self.absent.insert(id),
            _ => self.absent.remove(&id),
        };
    }

    /// Frees the retired that have no flow left, which `has_flows` has seen since `seen`, and
    /// returns what they were.
    pub(crate) fn free(
        &mut self,
        maps: &Maps,
        seen: Instant,
        has_flows: impl Fn(u32) -> bool,
    ) -> Vec<BackendKey> {
        let dead = &self.dead;
        let free = |id: &u32, until: &mut Instant| {
            *until <= seen && (!has_flows(*id) || dead.contains(id))
        };
        let freed: Vec<u32> = (self.retired.extract_if(.., free))
            .map(|(id, _)| id)
            .collect();
        let freed = freed.into_iter();
        freed.filter_map(|id| self.end(maps, id, seen)).collect()
    }

    /// Undoes that these have come, which no packet can have been sent to, and returns what they
    /// were.
    pub(crate) fn forget(&mut self, maps: &Maps, new: &[u32]) -> Vec<BackendKey> {
        let now = Instant::now();
        let new = new.iter();
        new.filter_map(|&id| self.end(maps, id, now)).collect()
    }

    /// Frees one that has no flow; its id may be used again at once.
    fn end(&mut self, maps: &Maps, id: u32, now: Instant) -> Option<BackendKey> {
        maps.backends.write(id, &NOBODY);
        self.dead.remove(&id);
        self.absent.remove(&id);
        self.ids.give_back(id, now, Duration::ZERO);
        let key = self.by_id.remove(&id)?.key;
        if let Some(ids) = self.by_address.get_mut(&key.address) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_address.remove(&key.address);
                self.moved.insert(key.address);
            }
        }
        if let Some(members) = self.pools.get_mut(&key.pool) {
            if members.live.get(&key.name) == Some(&id) {
                members.live.remove(&key.name);
            }
            let endpoint = (key.name.clone(), key.address, key.port);
            members.retired.remove(&endpoint);
            if members.live.is_empty() && members.retired.is_empty() {
                self.pools.remove(&key.pool);
            }
        }
        Some(key)
    }
}

const NOBODY: Backend = Backend {
    next_hop: abi::NextHop {
        destination: 0,
        source: 0,
        ifindex: 0,
        mtu: 0,
        device: 0,
    },
    address: [0; 2],
    port: 0,
    family: 0,
    flags: 0,
    weight: 0,
    reserved: [0; 4],
};

fn entry(known: &Known, backend: &DesiredBackend, next_hops: &NextHops) -> Backend {
    let Known { key, mark, .. } = known;
    let (address, family) = to_abi(key.address);
    let flags = match (backend.condition, backend.takes_flows()) {
        (Condition::Dead | Condition::Absent, _) => backend_flags::DEAD,
        (_, true) => backend_flags::ALIVE,
        (_, false) => 0,
    };
    let mut entry = Backend {
        address,
        family,
        reserved: [*mark as u32, (mark >> 32) as u32, 0, 0],
        port: key.port.to_be(),
        flags,
        weight: backend.weight,
        ..NOBODY
    };
    next_hops.put(key.address, &mut entry);
    entry
}

/// What a backend is to a ring: the same on every node that has it, whatever its id.
fn identity(key: &BackendKey) -> u64 {
    identity_at(key.address, key.port)
}

/// What a backend is, the same on every node.
pub(crate) fn identity_at(address: IpAddr, port: u16) -> u64 {
    let (address, family) = to_abi(address);
    HashKey([0, 0]).flow(
        IPV6,
        &address,
        &[u64::from(family), 0],
        u32::from(port.to_be()),
        0,
    )
}
