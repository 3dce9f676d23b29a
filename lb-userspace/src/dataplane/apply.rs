//! Making the maps say what is desired: compile, compare with what they say, write the
//! difference. What is new is written before anything names it, and what goes is unnamed
//! before it is freed, so that a packet finds either the old or the new, whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use aya::maps::{HashMap, MapData};
use lb_common::{
    abi::{self, Backend, IPV6, Service, ServiceKey, TICK_NS, backend_flags, features, mode},
    hash::HashKey,
    maglev::Member,
};

use super::{
    address::{service_key, to_abi},
    ids::Ids,
    loader::Maps,
    next_hops::NextHops,
    options::Limits,
    raw::Raw,
    rings::Rings,
};
use crate::desired::{Desired, DesiredBackend, DesiredService, Mode};

/// Why a desired state was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// More than the tables were made for.
    #[error(
        "{wanted} {what} do not fit: {available} are free of {limit} (some rest until no flow can remember them); raise `limits.{what}` and restart"
    )]
    Full {
        /// `services` or `backends`.
        what: &'static str,
        /// How many are new.
        wanted: usize,
        /// How many are free.
        available: usize,
        /// The limit.
        limit: u32,
    },
    /// Something that is fixed when the agent starts.
    #[error("{0} cannot change while the agent runs: restart it")]
    Fixed(&'static str),
    /// The kernel refused a write; the maps hold a part of the change, and the next apply
    /// starts from there.
    #[error("writing the data path's maps: {0:#}")]
    Kernel(#[from] anyhow::Error),
}

/// A backend of a pool as it was first given; with another address it is another backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct BackendKey {
    pool: String,
    name: String,
    address: IpAddr,
    port: u16,
}

struct AppliedService {
    key: ServiceKey,
    index: u32,
}

/// What the maps say, and the indexes that are in use.
pub(crate) struct Applied {
    limits: Limits,
    service_ids: Ids,
    backend_ids: Ids,
    services: BTreeMap<String, AppliedService>,
    backends: BTreeMap<BackendKey, u32>,
    /// Removed, and kept for the flows that they still have.
    retired: BTreeMap<BackendKey, (Instant, u32)>,
    keys: BTreeMap<ServiceKey, u32>,
    returns: BTreeMap<ServiceKey, u32>,
    sources: Vec<IpAddr>,
    longest_idle: Duration,
}

impl Applied {
    /// Empty maps of these sizes.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            service_ids: Ids::new(limits.services),
            backend_ids: Ids::new(limits.backends),
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            retired: BTreeMap::new(),
            keys: BTreeMap::new(),
            returns: BTreeMap::new(),
            sources: Vec::new(),
            longest_idle: Duration::ZERO,
        }
    }

    /// Index of each service.
    pub(crate) fn service_indexes(&self) -> impl Iterator<Item = (&str, u32)> {
        self.services
            .iter()
            .map(|(name, service)| (name.as_str(), service.index))
    }

    /// Pool, name and id of each backend.
    pub(crate) fn backend_ids(&self) -> impl Iterator<Item = (&str, &str, u32)> {
        self.backends
            .iter()
            .map(|(key, id)| (key.pool.as_str(), key.name.as_str(), *id))
    }

    /// Address and id of each backend that packets may still go to.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let retired = self.retired.iter().map(|(key, (_, id))| (key.address, *id));
        self.backends
            .iter()
            .map(|(key, id)| (key.address, *id))
            .chain(retired)
    }

    /// Makes the maps say what is desired.
    ///
    /// # Errors
    ///
    /// See [`ApplyError`]; only with [`ApplyError::Kernel`] was anything changed.
    pub(crate) fn apply(
        &mut self,
        maps: &mut Maps,
        rings: &mut Rings,
        next_hops: &NextHops,
        desired: &Desired,
    ) -> Result<(), ApplyError> {
        let now = Instant::now();
        self.check(desired, now)?;
        self.longest_idle = desired
            .services
            .values()
            .map(|service| service.idle_timeout)
            .fold(self.longest_idle, Duration::max);
        self.write_sources(maps, desired)?;
        let members = self.write_backends(maps, next_hops, desired, now)?;
        self.retire_backends(maps, desired, now);
        rings.set(members.into_iter())?;
        self.write_services(maps, rings, desired, now)?;
        self.retire_services(desired, now);
        self.write_returns(maps, desired)?;
        self.write_keys(maps)?;
        write_features(maps, desired);
        rings.keep(|pool| desired.pools.contains_key(pool));
        Ok(())
    }

    fn check(&self, desired: &Desired, now: Instant) -> Result<(), ApplyError> {
        if !self.sources.is_empty() && self.sources != sorted(&desired.source_addresses) {
            return Err(ApplyError::Fixed("full_nat.addresses"));
        }
        let new_services = desired
            .services
            .iter()
            .filter(|(name, service)| !self.knows(name, service))
            .count();
        let new_backends = keys(desired)
            .filter(|(_, key, _)| {
                !self.backends.contains_key(key) && !self.retired.contains_key(key)
            })
            .count();
        for (what, wanted, ids, limit) in [
            (
                "services",
                new_services,
                &self.service_ids,
                self.limits.services,
            ),
            (
                "backends",
                new_backends,
                &self.backend_ids,
                self.limits.backends,
            ),
        ] {
            let available = ids.available(now);
            if wanted > available {
                return Err(ApplyError::Full {
                    what,
                    wanted,
                    available,
                    limit,
                });
            }
        }
        Ok(())
    }

    fn knows(&self, name: &str, service: &DesiredService) -> bool {
        self.services
            .get(name)
            .is_some_and(|applied| applied.key == key_of(service))
    }

    fn write_sources(&mut self, maps: &mut Maps, desired: &Desired) -> anyhow::Result<()> {
        if self.sources.is_empty() {
            let sources = sorted(&desired.source_addresses);
            for (index, &source) in (0..).zip(&sources) {
                maps.sources
                    .set(index, Raw(to_abi(source).0), 0)
                    .with_context(|| format!("source address {source}"))?;
            }
            self.sources = sources;
        }
        Ok(())
    }

    /// Writes every backend; returns what each pool's ring is to be made of.
    fn write_backends<'a>(
        &mut self,
        maps: &mut Maps,
        next_hops: &NextHops,
        desired: &'a Desired,
        now: Instant,
    ) -> anyhow::Result<BTreeMap<&'a str, Vec<Member>>> {
        let mut members: BTreeMap<&str, Vec<Member>> = desired
            .pools
            .keys()
            .map(|pool| (pool.as_str(), Vec::new()))
            .collect();
        for (pool, key, backend) in keys(desired) {
            let id = match self.backends.get(&key) {
                Some(&id) => id,
                None => self.adopt(maps, &key, now)?,
            };
            let takes_flows = backend.alive && backend.weight > 0;
            let entry = backend_entry(&key, takes_flows, next_hops);
            maps.backends.write(id, &entry);
            if takes_flows {
                members.entry(pool).or_default().push(Member {
                    key: identity(&entry),
                    id,
                    weight: backend.weight,
                });
            }
        }
        Ok(members)
    }

    /// Moves the backends that are not desired aside, and frees those that have rested.
    fn retire_backends(&mut self, maps: &mut Maps, desired: &Desired, now: Instant) {
        let desired: BTreeSet<BackendKey> = keys(desired).map(|(_, key, _)| key).collect();
        let gone: Vec<BackendKey> = self
            .backends
            .keys()
            .filter(|key| !desired.contains(key))
            .cloned()
            .collect();
        for key in gone {
            if let Some(id) = self.backends.remove(&key) {
                let mut entry = maps.backends.read(id);
                entry.flags &= !backend_flags::ALIVE;
                maps.backends.write(id, &entry);
                self.retired.insert(key, (now + self.longest_idle, id));
            }
        }
        self.retired.retain(|_, &mut (until, id)| {
            if until > now {
                return true;
            }
            maps.backends.write(id, &NOBODY);
            self.backend_ids.give_back(id, now, Duration::ZERO);
            false
        });
    }

    fn retire_services(&mut self, desired: &Desired, now: Instant) {
        self.services.retain(|name, service| {
            let kept = desired.services.contains_key(name);
            if !kept {
                self.service_ids
                    .give_back(service.index, now, self.longest_idle);
            }
            kept
        });
    }

    /// An id for a backend that is new, or was removed a short while ago.
    fn adopt(&mut self, maps: &mut Maps, key: &BackendKey, now: Instant) -> anyhow::Result<u32> {
        let id = match self.retired.remove(key) {
            Some((_, id)) => id,
            None => {
                let id = self
                    .backend_ids
                    .take(now)
                    .context("no backend id is left")?;
                maps.reset_backend_counters(id)?;
                id
            }
        };
        self.backends.insert(key.clone(), id);
        Ok(id)
    }

    fn write_services(
        &mut self,
        maps: &mut Maps,
        rings: &Rings,
        desired: &Desired,
        now: Instant,
    ) -> anyhow::Result<()> {
        for (name, service) in &desired.services {
            let key = key_of(service);
            let entry = self.service_entry(rings, desired, service, &key);
            let index = match self.services.get(name) {
                Some(applied) if applied.key == key => applied.index,
                old => {
                    let rest = self.longest_idle;
                    if let Some(old) = old {
                        self.service_ids.give_back(old.index, now, rest);
                    }
                    let index = self
                        .service_ids
                        .take(now)
                        .context("no service index is left")?;
                    maps.reset_service_counters(index)?;
                    index
                }
            };
            maps.services.write(index, &entry);
            self.services
                .insert(name.clone(), AppliedService { key, index });
        }
        Ok(())
    }

    fn service_entry(
        &self,
        rings: &Rings,
        desired: &Desired,
        service: &DesiredService,
        key: &ServiceKey,
    ) -> Service {
        let ipv4 = self
            .sources
            .iter()
            .filter(|source| source.is_ipv4())
            .count() as u32;
        let all = self.sources.len() as u32;
        let (source_first, source_count) = match (service.mode, service.address) {
            (Mode::FullNat, IpAddr::V4(_)) => (0, ipv4),
            (Mode::FullNat, IpAddr::V6(_)) => (ipv4, all - ipv4),
            _ => (0, 0),
        };
        let idle_ticks = service
            .idle_timeout
            .as_nanos()
            .div_ceil(u128::from(TICK_NS));
        Service {
            ring: rings.word(&service.pool),
            address: key.address,
            port: key.port,
            protocol: key.protocol,
            family: key.family,
            mode: mode_number(service.mode),
            reserved: [0; 3],
            source_first,
            source_count,
            port_first: desired.source_ports.0,
            port_last: desired.source_ports.1,
            idle_ticks: u32::try_from(idle_ticks).unwrap_or(u32::MAX),
            reserved2: [0; 4],
        }
    }

    /// The way back of `nat`: a backend's address and port to its service.
    fn write_returns(&mut self, maps: &mut Maps, desired: &Desired) -> anyhow::Result<()> {
        let mut returns = BTreeMap::new();
        for (name, service) in &desired.services {
            let Some(applied) = self.services.get(name) else {
                continue;
            };
            if service.mode != Mode::Nat {
                continue;
            }
            let live = desired.pools.get(&service.pool).into_iter().flatten();
            let live = live.map(|(_, backend)| (backend.address, backend.port));
            let retired = self
                .retired
                .keys()
                .filter(|key| key.pool == service.pool)
                .map(|key| (key.address, key.port));
            for (address, port) in retired.chain(live) {
                returns.insert(service_key(address, port, service.protocol), applied.index);
            }
        }
        sync(&mut maps.returns, &mut self.returns, returns).context("return keys")
    }

    /// The VIPs, and each VIP's address alone for what has no port.
    fn write_keys(&mut self, maps: &mut Maps) -> anyhow::Result<()> {
        let mut keys = BTreeMap::new();
        for service in self.services.values() {
            keys.insert(service.key, service.index);
            keys.insert(
                ServiceKey::any_port(service.key.family, service.key.address),
                0,
            );
        }
        sync(&mut maps.services_by_key, &mut self.keys, keys).context("service keys")
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
    reserved: [0; 5],
};

fn backend_entry(key: &BackendKey, takes_flows: bool, next_hops: &NextHops) -> Backend {
    let (address, family) = to_abi(key.address);
    let mut entry = Backend {
        address,
        family,
        port: key.port.to_be(),
        flags: if takes_flows { backend_flags::ALIVE } else { 0 },
        ..NOBODY
    };
    next_hops.put(key.address, &mut entry);
    entry
}

/// What a backend is to the ring: the same on every node that has it, whatever its id.
fn identity(backend: &Backend) -> u64 {
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

fn key_of(service: &DesiredService) -> ServiceKey {
    service_key(service.address, service.port, service.protocol)
}

/// IPv4 before IPv6, so that each family's are in a row.
fn sorted(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    addresses
}

fn mode_number(mode: Mode) -> u8 {
    match mode {
        Mode::Nat => mode::NAT,
        Mode::FullNat => mode::FULL_NAT,
        Mode::Dsr => mode::DSR,
    }
}

fn write_features(maps: &Maps, desired: &Desired) {
    let mut settings = maps.settings.read(0);
    settings.features = desired
        .services
        .values()
        .map(|service| match service.mode {
            Mode::Nat => features::NAT,
            Mode::FullNat => features::FULL_NAT,
            Mode::Dsr => 0,
        })
        .fold(0, |all, one| all | one);
    maps.settings.write(0, &settings);
}

/// Makes a hash map hold `new`, where it holds `old` now.
fn sync(
    map: &mut HashMap<MapData, Raw<ServiceKey>, u32>,
    old: &mut BTreeMap<ServiceKey, u32>,
    new: BTreeMap<ServiceKey, u32>,
) -> anyhow::Result<()> {
    for (key, index) in &new {
        if old.get(key) != Some(index) {
            map.insert(Raw(*key), index, 0)?;
            old.insert(*key, *index);
        }
    }
    let gone: Vec<ServiceKey> = old
        .keys()
        .filter(|key| !new.contains_key(key))
        .copied()
        .collect();
    for key in gone {
        map.remove(&Raw(key))?;
        old.remove(&key);
    }
    Ok(())
}
