//! Making the maps say what is desired: take in what changes, and write what of it the maps do
//! not say yet. What is new is written before anything names it, and what goes is unnamed
//! before it is freed, so that a packet finds either the old or the new, whole.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    address::to_abi,
    backends::{Backends, Outcome, Writing},
    clock,
    loader::Maps,
    next_hops::NextHops,
    options::Limits,
    pins::Inherited,
    raw::Raw,
    rings::{Rings, Wanted},
    services::{self, Services},
};
use crate::desired::{Algorithm, Delta, Desired, DesiredPool, DesiredService, OnDeath};

/// Why a desired state was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// More than the tables were made for.
    #[error(
        "{wanted} more {what} do not fit: {available} are free of {limit} (some rest until no flow \
         can remember them); raise `agent.limits.{what}` and restart"
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

/// What the maps say.
pub(crate) struct Applied {
    limits: Limits,
    pub(crate) services: Services,
    pub(crate) backends: Backends,
    pub(crate) rings: Rings,
    longest_idle: Duration,
    /// What they are to say, and do but for what is unfinished.
    desired: Desired,
    /// Services by the pools that they name.
    users: HashMap<String, BTreeSet<String>>,
    unfinished: Unfinished,
    /// What there is of an earlier agent's, until all of it has found its place.
    inherited: Option<Inherited>,
    changes: u64,
    /// Tick of the first change.
    started: Option<u32>,
}

/// What the maps may not say yet.
#[derive(Default)]
struct Unfinished {
    services: BTreeSet<String>,
    local: BTreeSet<String>,
    /// And whether rings of theirs are out of date.
    pools: BTreeMap<String, bool>,
    /// Pools whose tables say whose the flows are that nobody remembers.
    begun: BTreeSet<String>,
}

impl Applied {
    /// Empty maps of these sizes.
    pub(crate) fn new(limits: Limits, rings: Rings, inherited: Option<Inherited>) -> Self {
        let mut services = Services::new(limits.services);
        let mut backends = Backends::new(limits.backends);
        if let Some(inherited) = &inherited {
            services.inherit(inherited.services());
            backends.inherit(inherited.backends());
        }
        Self {
            limits,
            services,
            backends,
            rings,
            longest_idle: Duration::ZERO,
            desired: Desired::default(),
            users: HashMap::new(),
            unfinished: Unfinished::default(),
            inherited,
            changes: 0,
            started: None,
        }
    }

    /// Ends the inheritance: gives what there was of an earlier agent's, and expects
    /// [`Applied::leave_inherited`] in the end.
    pub(crate) fn take_inherited(&mut self) -> Option<Inherited> {
        self.inherited.take()
    }

    /// Has numbers of an earlier agent's that nobody has taken rest until no flow can have them.
    pub(crate) fn leave_inherited(&mut self) {
        self.services.leave_inherited(self.longest_idle);
        self.backends.leave_inherited(self.longest_idle);
    }

    /// What a pool is to be.
    pub(crate) fn pool(&self, name: &str) -> Option<Arc<DesiredPool>> {
        self.desired.pools.get(name).cloned()
    }

    /// The name of a service's pool.
    pub(crate) fn pool_of(&self, service: &str) -> Option<&str> {
        let service = self.desired.services.get(service)?;
        Some(&service.pool)
    }

    /// Makes the maps say what is desired.
    ///
    /// # Errors
    ///
    /// See [`ApplyError`]; only with [`ApplyError::Kernel`] was anything changed.
    pub(crate) fn apply(
        &mut self,
        maps: &mut Maps,
        next_hops: &NextHops,
        desired: &Desired,
    ) -> Result<(), ApplyError> {
        let sources = sorted(&desired.source_addresses);
        let peers = sorted(&desired.peer_source_addresses);
        if !self.desired.source_addresses.is_empty() && self.desired.source_addresses != sources {
            return Err(ApplyError::Fixed("agent.full_nat.addresses"));
        }
        let delta = Delta::between(&self.desired, desired);
        self.check(&delta)?;
        for (index, &source) in (0..).zip(sources.iter().chain(&peers)) {
            maps.sources
                .set(index, Raw(to_abi(source).0), 0)
                .with_context(|| format!("source address {source}"))?;
        }
        self.desired.source_addresses = sources;
        self.desired.peer_source_addresses = peers;
        self.desired.source_ports = desired.source_ports;
        self.change(maps, next_hops, delta)
    }

    /// Makes the maps say what changes.
    ///
    /// # Errors
    ///
    /// See [`ApplyError`]; only with [`ApplyError::Kernel`] was anything changed.
    pub(crate) fn change(
        &mut self,
        maps: &mut Maps,
        next_hops: &NextHops,
        delta: Delta,
    ) -> Result<(), ApplyError> {
        self.check(&delta)?;
        self.changes += 1;
        self.take_in(delta);
        self.write(maps, next_hops)?;
        self.unfinished = Unfinished::default();
        Ok(())
    }

    /// How often something was to be changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether the kernel has refused a part of what is desired.
    pub(crate) fn is_unfinished(&self) -> bool {
        !self.unfinished.services.is_empty() || !self.unfinished.pools.is_empty()
    }

    /// How many new services and backends there is room for.
    pub(crate) fn room(&self) -> (usize, usize) {
        let (now, nothing) = (Instant::now(), Delta::default());
        let services = self.services.demand(&nothing, now);
        (services.1, self.backends.demand(&nothing, now).1)
    }

    fn check(&self, delta: &Delta) -> Result<(), ApplyError> {
        let now = Instant::now();
        let services = self.services.demand(delta, now);
        let backends = self.backends.demand(delta, now);
        for (what, (wanted, available), limit) in [
            ("services", services, self.limits.services),
            ("backends", backends, self.limits.backends),
        ] {
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

    fn take_in(&mut self, delta: Delta) {
        self.unfinished.begun.extend(delta.begun.iter().cloned());
        for local in delta.local.keys() {
            self.unfinished.local.insert(local.clone());
        }
        for pool in delta.pools.keys() {
            self.unfinished.pools.entry(pool.clone()).or_default();
        }
        for (name, new) in &delta.services {
            self.unfinished.services.insert(name.clone());
            for pool in self.desired.services.get(name).into_iter().flat_map(pools) {
                if let Some(users) = self.users.get_mut(pool) {
                    users.remove(name);
                    if users.is_empty() {
                        self.users.remove(pool);
                    }
                }
            }
            for pool in new.iter().flat_map(pools) {
                let users = self.users.entry(pool.clone()).or_default();
                users.insert(name.clone());
            }
            let idle = new.as_ref().map(|service| service.idle_timeout);
            self.longest_idle = self.longest_idle.max(idle.unwrap_or_default());
        }
        self.desired.change(delta);
    }

    fn write(&mut self, maps: &mut Maps, next_hops: &NextHops) -> anyhow::Result<()> {
        self.write_new(maps, next_hops)?;
        let Self {
            services,
            backends,
            rings,
            desired,
            unfinished,
            ..
        } = self;
        let needed = services::needed_features(desired.services.values());
        let mut settings = maps.settings.read(0);
        settings.features |= needed;
        maps.settings.write(0, &settings);
        let mut to = services::Writing {
            maps,
            backends,
            sources: &desired.source_addresses,
            source_ports: desired.source_ports,
            longest_idle: self.longest_idle,
        };
        let (stay, go): (Vec<&String>, Vec<&String>) =
            (unfinished.services.iter()).partition(|name| desired.services.contains_key(*name));
        let mut affected: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut buried: BTreeSet<&str> = BTreeSet::new();
        for &name in &stay {
            affected.insert((&desired.services[name].pool, name));
        }
        let begun = &unfinished.begun;
        let stale = |(pool, stale): &(&String, &bool)| **stale || begun.contains(*pool);
        for (pool, _) in unfinished.pools.iter().filter(stale) {
            for user in self.users.get(pool).into_iter().flatten() {
                if desired.services[user].pool == *pool {
                    affected.insert((pool, user));
                } else {
                    buried.insert(user);
                }
            }
        }
        if let Some(inherited) = &self.inherited {
            for (_, name) in &affected {
                let vip = services::key_of(&desired.services[*name]);
                if rings.get(name).is_none()
                    && let Some(ring) = inherited.ring(&vip)?
                {
                    rings.inherit(name, ring);
                }
            }
        }
        let wanted = affected.iter().map(|&(pool, name)| {
            let service = &desired.services[name];
            Wanted {
                service: name,
                pool,
                in_turns: service.algorithm == Algorithm::RoundRobin,
                remember: services::remember(service),
                hashed_ports: services::hashed_ports(service),
                silent: is_silent(service),
                buries: backends.loses_any(is_silent(service)),
            }
        });
        let tick = clock::tick().context("reading the clock")?;
        let lost = |id, silent| backends.is_lost(id, silent);
        self.started.get_or_insert(tick);
        rings.set(wanted, |pool| backends.members(pool), tick, lost)?;
        for name in buried {
            let silent = is_silent(&desired.services[name]);
            rings.bury(name, |id| lost(id, silent));
        }
        for (pool, name) in &affected {
            if begun.contains(*pool) {
                rings.begin(name, self.started.unwrap_or(tick), tick);
            }
        }
        for (_, name) in affected {
            let ring = (rings.word(name), rings.base_hashed_ports(name));
            services.write(&mut to, name, &desired.services[name], ring)?;
        }
        for name in &go {
            services.remove(&mut to, name);
        }
        let maps = to.maps;
        for name in std::mem::take(&mut unfinished.local) {
            services.write_local(maps, &name, desired.local.get(&name));
        }
        maps.services_by_key.finish()?;
        maps.returns.finish()?;
        settings.features = needed;
        maps.settings.write(0, &settings);
        for name in go {
            rings.remove(name);
        }
        Ok(())
    }

    /// Writes what must be there before any packet can reach a backend: those of pools, and the
    /// way back of their answers. Where the kernel refuses a part of it, what is new goes again:
    /// nothing names it yet, and what of it stayed would be in the way of later changes.
    fn write_new(&mut self, maps: &mut Maps, next_hops: &NextHops) -> anyhow::Result<()> {
        let mut new = Vec::new();
        let mut answered = Vec::new();
        // What goes may be among those.
        let refused = maps.returns.refused();
        let written = self.write_backends(maps, next_hops, &mut new);
        let written = written.and_then(|()| {
            let services = self.unfinished.services.iter();
            let desired = &self.desired.services;
            for (name, service) in services.filter_map(|name| desired.get_key_value(name)) {
                let idle = self.longest_idle;
                let before = (self.services).prepare(maps, &self.backends, (name, service), idle);
                answered.extend(before.map(|before| (name.clone(), before)));
            }
            maps.returns.check(refused)
        });
        if written.is_err() {
            for (name, before) in answered {
                self.services.unprepare(maps, &self.backends, &name, before);
            }
            for backend in self.backends.forget(maps, &new) {
                self.services.left(maps, &backend);
            }
        }
        written
    }

    fn write_backends(
        &mut self,
        maps: &mut Maps,
        next_hops: &NextHops,
        new: &mut Vec<u32>,
    ) -> anyhow::Result<()> {
        let none = DesiredPool::new();
        for (pool, stale) in &mut self.unfinished.pools {
            let desired = self.desired.pools.get(pool);
            let desired = desired.map_or(&none, |desired| desired);
            let mut outcome = Outcome::default();
            let mut to = Writing {
                maps,
                next_hops,
                now: Instant::now(),
                longest_idle: self.longest_idle,
            };
            let result = self.backends.write(&mut to, pool, desired, &mut outcome);
            *stale |= outcome.changed;
            new.append(&mut outcome.new);
            self.services.joined(maps, pool, &outcome.joined);
            result?;
        }
        Ok(())
    }

    /// The backend of a service at an address and port, if packets may still go to it.
    pub(crate) fn backend_at(&self, service: &str, at: SocketAddr) -> Option<u32> {
        let service = self.desired.services.get(service)?;
        let ids = self.backends.ids_at(at.ip()).iter().copied();
        let mut of_service = ids.filter(|&id| {
            self.backends.find(id).is_some_and(|key| {
                key.port == at.port() && pools(service).any(|pool| **pool == *key.pool)
            })
        });
        of_service.next()
    }

    /// A source address of `full-nat`, of this node or another, by index.
    pub(crate) fn source(&self, index: u32) -> Option<IpAddr> {
        self.sources().nth(index as usize)
    }

    /// The index of a source address of `full-nat`.
    pub(crate) fn source_index(&self, address: IpAddr) -> Option<u32> {
        let mut sources = (0..).zip(self.sources());
        sources.find_map(|(index, source)| (source == address).then_some(index))
    }

    fn sources(&self) -> impl Iterator<Item = IpAddr> {
        let own = self.desired.source_addresses.iter();
        own.chain(&self.desired.peer_source_addresses).copied()
    }

    /// Frees what no flow needs any more, `has_flows` having seen them all since `seen`.
    pub(crate) fn tidy(&mut self, maps: &mut Maps, seen: Instant, has_flows: impl Fn(u32) -> bool) {
        for backend in self.backends.free(maps, seen, has_flows) {
            self.services.left(maps, &backend);
        }
        self.services.tidy(maps, &self.backends);
        match self.rings.shrink() {
            Ok(shrunk) => {
                for (name, word) in shrunk {
                    self.services.write_ring(maps, &name, word);
                }
            }
            Err(error) => tracing::warn!("shrinking rings: {error:#}"),
        }
        self.rings.collect();
    }
}

fn pools(service: &DesiredService) -> impl Iterator<Item = &String> {
    service.other_pools.iter().chain([&service.pool])
}

fn is_silent(service: &DesiredService) -> bool {
    service.on_death == OnDeath::Silent
}

/// Source addresses in the order of their indexes: new flows take theirs from the first.
pub(super) fn sources(own: &[IpAddr], peers: &[IpAddr]) -> Vec<IpAddr> {
    [sorted(own), sorted(peers)].concat()
}

/// IPv4 before IPv6, so that each family's are in a row.
fn sorted(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    addresses
}
