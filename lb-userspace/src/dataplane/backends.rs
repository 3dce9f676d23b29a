//! The backends of all pools: their ids, and their entries in the map.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lb_common::{
    abi::{self, Backend, IPV6, backend_flags},
    hash::HashKey,
    maglev::Member,
};

use super::{address::to_abi, ids::Ids, loader::Maps, next_hops::NextHops};
use crate::desired::{Condition, Desired, DesiredBackend};

/// Beyond the idle timeout, for clocks and the janitor's passes.
const MARGIN: Duration = Duration::from_secs(15);

/// A backend of a pool as it was first given; with another address it is another backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BackendKey {
    pub(crate) pool: String,
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

/// Every backend that packets may go to.
pub(crate) struct Backends {
    ids: Ids,
    live: BTreeMap<BackendKey, u32>,
    /// Removed, and kept for the flows that they still have: until when at least.
    retired: BTreeMap<BackendKey, (Instant, u32)>,
    dead: BTreeSet<u32>,
}

impl Backends {
    /// None yet, and at most so many.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            ids: Ids::new(limit),
            live: BTreeMap::new(),
            retired: BTreeMap::new(),
            dead: BTreeSet::new(),
        }
    }

    /// How many of the desired ones need a new id, and how many ids are free.
    pub(crate) fn demand(&self, desired: &Desired, now: Instant) -> (usize, usize) {
        let new = keys(desired)
            .filter(|(_, key, _)| !self.live.contains_key(key) && !self.retired.contains_key(key));
        (new.count(), self.ids.available(now))
    }

    /// Those of the configuration.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&BackendKey, u32)> {
        self.live.iter().map(|(key, id)| (key, *id))
    }

    /// Those that are removed and may still have flows.
    pub(crate) fn retired(&self) -> impl Iterator<Item = &BackendKey> {
        self.retired.keys()
    }

    /// Address and id of each that packets may still go to.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let retired = self.retired.iter().map(|(key, (_, id))| (key.address, *id));
        self.live
            .iter()
            .map(|(key, id)| (key.address, *id))
            .chain(retired)
    }

    /// The backend with an id, if packets may still go to it.
    pub(crate) fn find(&self, id: u32) -> Option<&BackendKey> {
        let retired = self.retired.iter().map(|(key, (_, id))| (key, id));
        self.live
            .iter()
            .chain(retired)
            .find_map(|(key, its)| (*its == id).then_some(key))
    }

    /// Those that have failed.
    pub(crate) fn dead(&self) -> impl Iterator<Item = u32> {
        self.dead.iter().copied()
    }

    /// Whether a backend has failed.
    pub(crate) fn is_dead(&self, id: u32) -> bool {
        self.dead.contains(&id)
    }

    /// Writes every backend of these pools; returns what their rings are to be made of.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn write<'a>(
        &mut self,
        maps: &mut Maps,
        next_hops: &NextHops,
        desired: &'a Desired,
        now: Instant,
    ) -> anyhow::Result<BTreeMap<&'a str, Vec<Member>>> {
        let names = desired.pools.keys();
        let mut members: BTreeMap<&str, Vec<Member>> =
            names.map(|pool| (pool.as_str(), Vec::new())).collect();
        for (pool, key, backend) in keys(desired) {
            let id = match self.live.get(&key) {
                Some(&id) => id,
                None => self.adopt(maps, &key, now)?,
            };
            let entry = entry(&key, backend, next_hops);
            maps.backends.write(id, &entry);
            match backend.condition {
                Condition::Dead => self.dead.insert(id),
                _ => self.dead.remove(&id),
            };
            if backend.takes_flows() {
                members.entry(pool).or_default().push(Member {
                    key: identity(&entry),
                    id,
                    weight: backend.weight,
                });
            }
        }
        Ok(members)
    }

    /// An id for a backend that is new, or was removed a short while ago.
    fn adopt(&mut self, maps: &mut Maps, key: &BackendKey, now: Instant) -> anyhow::Result<u32> {
        let id = match self.retired.remove(key) {
            Some((_, id)) => id,
            None => {
                let id = self.ids.take(now).context("no backend id is left")?;
                maps.reset_backend_counters(id)?;
                id
            }
        };
        self.live.insert(key.clone(), id);
        Ok(id)
    }

    /// Moves the backends that are not desired aside: they keep their flows, and get no more.
    pub(crate) fn retire(
        &mut self,
        maps: &Maps,
        desired: &Desired,
        now: Instant,
        longest_idle: Duration,
    ) {
        let desired: BTreeSet<BackendKey> = keys(desired).map(|(_, key, _)| key).collect();
        let gone: Vec<BackendKey> = self
            .live
            .keys()
            .filter(|key| !desired.contains(key))
            .cloned()
            .collect();
        for key in gone {
            if let Some(id) = self.live.remove(&key) {
                let mut entry = maps.backends.read(id);
                entry.flags &= !backend_flags::ALIVE;
                maps.backends.write(id, &entry);
                self.retired.insert(key, (now + longest_idle + MARGIN, id));
            }
        }
    }

    /// Frees the retired that have no flow left, which `has_flows` has seen since `seen`.
    pub(crate) fn free(&mut self, maps: &Maps, seen: Instant, has_flows: impl Fn(u32) -> bool) {
        self.retired.retain(|_, &mut (until, id)| {
            if until > seen || (has_flows(id) && !self.dead.contains(&id)) {
                return true;
            }
            maps.backends.write(id, &NOBODY);
            self.dead.remove(&id);
            self.ids.give_back(id, seen, Duration::ZERO);
            false
        });
    }
}

const NOBODY: Backend = Backend {
    next_hop: abi::NextHop {
        destination: 0,
        source: 0,
        ifindex: 0,
        mtu: 0,
    },
    address: [0; 2],
    port: 0,
    family: 0,
    flags: 0,
    weight: 0,
    reserved: [0; 4],
};

fn entry(key: &BackendKey, backend: &DesiredBackend, next_hops: &NextHops) -> Backend {
    let (address, family) = to_abi(key.address);
    let flags = match (backend.condition, backend.takes_flows()) {
        (Condition::Dead, _) => backend_flags::DEAD,
        (_, true) => backend_flags::ALIVE,
        (_, false) => 0,
    };
    let mut entry = Backend {
        address,
        family,
        port: key.port.to_be(),
        flags,
        weight: backend.weight,
        ..NOBODY
    };
    next_hops.put(key.address, &mut entry);
    entry
}

/// What a backend is to a ring: the same on every node that has it, whatever its id.
pub(crate) fn identity(backend: &Backend) -> u64 {
    HashKey([0, 0]).flow(
        IPV6,
        &backend.address,
        &[u64::from(backend.family), 0],
        u32::from(backend.port),
        0,
    )
}

/// Every desired backend: its pool's name, its key, itself.
fn keys(desired: &Desired) -> impl Iterator<Item = (&str, BackendKey, &DesiredBackend)> {
    desired.pools.iter().flat_map(|(pool, backends)| {
        backends.iter().map(|(name, backend)| {
            let key = BackendKey {
                pool: pool.clone(),
                name: name.clone(),
                address: backend.address,
                port: backend.port,
            };
            (pool.as_str(), key, backend)
        })
    })
}
