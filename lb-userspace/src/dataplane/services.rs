//! Services: their indexes, their entries, and the keys under which packets find them.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lb_common::{
    abi::{Service, ServiceKey, TICK_NS, algorithm, features, mode, service_flags},
    ring::Remember,
};

use super::{
    address::service_key,
    backends::{BackendKey, Backends},
    ids::Ids,
    loader::Maps,
    returns::{Answering, Returns},
};
use crate::desired::{
    Algorithm, Delta, DesiredLocal, DesiredService, Mode, OnDeath, OnEmpty, Protocol, Tracking,
};

/// A service that packets find.
#[derive(Clone, Copy)]
pub(crate) struct Applied {
    pub(crate) key: ServiceKey,
    pub(crate) index: u32,
    pub(crate) idle_ticks: u32,
}

/// Every service.
pub(crate) struct Services {
    ids: Ids,
    by_name: BTreeMap<String, Applied>,
    by_key: HashMap<ServiceKey, String>,
    /// By VIP without a port, how many services of the packet path and of the proxy have it.
    any_port: HashMap<ServiceKey, (u32, u32)>,
    /// VIPs of the proxy's services without their ports, by name.
    local: HashMap<String, ServiceKey>,
    returns: Returns,
    /// Indexes that an earlier agent had given out.
    inherited: HashMap<ServiceKey, u32>,
}

/// What writing a service needs beside it.
pub(crate) struct Writing<'a> {
    pub(crate) maps: &'a mut Maps,
    pub(crate) backends: &'a Backends,
    pub(crate) sources: &'a [IpAddr],
    pub(crate) source_ports: (u16, u16),
    /// For how long flows may live on.
    pub(crate) longest_idle: Duration,
}

impl Services {
    /// None yet, and at most so many.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            ids: Ids::new(limit),
            by_name: BTreeMap::new(),
            by_key: HashMap::new(),
            any_port: HashMap::new(),
            local: HashMap::new(),
            returns: Returns::default(),
            inherited: HashMap::new(),
        }
    }

    /// Goes on where an earlier agent has ended, which had these indexes. None is there yet.
    pub(crate) fn inherit(&mut self, indexes: impl Iterator<Item = (ServiceKey, u32)>) {
        self.inherited = indexes.collect();
        self.ids.inherit(self.inherited.values().copied());
    }

    /// Has the indexes of an earlier agent's that are no service's any more rest.
    pub(crate) fn leave_inherited(&mut self, rest: Duration) {
        self.inherited = HashMap::new();
        self.ids.leave_inherited(Instant::now(), rest);
    }

    fn take_inherited(&mut self, key: &ServiceKey) -> Option<u32> {
        let index = self.inherited.remove(key)?;
        self.ids.take_inherited(index).then_some(index)
    }

    /// How many new indexes a change needs, and how many are free.
    pub(crate) fn demand(&self, delta: &Delta, now: Instant) -> (usize, usize) {
        let new = delta.services.iter().filter(|(name, service)| {
            let applied = self.by_name.get(name.as_str());
            let is_new = |service: &DesiredService| {
                applied.is_none_or(|applied| applied.key != key_of(service))
            };
            service.as_ref().is_some_and(is_new)
        });
        (new.count(), self.ids.available(now))
    }

    /// All, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Applied)> {
        self.by_name
            .iter()
            .map(|(name, applied)| (name.as_str(), *applied))
    }

    /// One by its name.
    pub(crate) fn get(&self, name: &str) -> Option<Applied> {
        self.by_name.get(name).copied()
    }

    /// The one with a VIP.
    pub(crate) fn find(&self, key: &ServiceKey) -> Option<(&str, Applied)> {
        let name = self.by_key.get(key)?;
        Some((name, self.get(name)?))
    }

    /// Has answers of a service's backends find it before any packet can reach them, if the
    /// service is there already; whose did before, where that is another.
    pub(crate) fn prepare(
        &mut self,
        maps: &mut Maps,
        backends: &Backends,
        (name, service): (&str, &DesiredService),
        longest_idle: Duration,
    ) -> Option<Vec<Answering>> {
        let applied = self.get(name)?;
        if applied.key != key_of(service) {
            return None;
        }
        let new = answering(service, applied.index);
        (self.returns).set(&mut maps.returns, backends, name, new, Some(longest_idle))
    }

    /// Undoes [`Services::prepare`].
    pub(crate) fn unprepare(
        &mut self,
        maps: &mut Maps,
        backends: &Backends,
        name: &str,
        before: Vec<Answering>,
    ) {
        (self.returns).set(&mut maps.returns, backends, name, before, None);
    }

    /// Backends have joined a pool: their answers find its services.
    pub(crate) fn joined(&mut self, maps: &mut Maps, pool: &str, endpoints: &[(IpAddr, u16)]) {
        self.returns.joined(&mut maps.returns, pool, endpoints);
    }

    /// A backend has gone, with all its flows.
    pub(crate) fn left(&mut self, maps: &mut Maps, backend: &BackendKey) {
        let endpoint = (backend.address, backend.port);
        self.returns
            .left(&mut maps.returns, &backend.pool, endpoint);
    }

    /// Ends what need not be known any more.
    pub(crate) fn tidy(&mut self, maps: &mut Maps, backends: &Backends) {
        self.returns.tidy(&mut maps.returns, backends);
    }

    /// Writes a service's entry, with what it says of its ring, and the keys under which it is
    /// found.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn write(
        &mut self,
        to: &mut Writing<'_>,
        name: &str,
        service: &DesiredService,
        (ring_word, base_hashed_ports): (u64, Option<u32>),
    ) -> anyhow::Result<()> {
        let key = key_of(service);
        let old = self.get(name);
        let index = match old {
            Some(old) if old.key == key => old.index,
            _ => match self.take_inherited(&key) {
                Some(index) => index,
                None => {
                    let taken = self.ids.take(Instant::now());
                    let (index, used) = taken.context("no service index is left")?;
                    if used {
                        to.maps.reset_service_counters(index)?;
                    }
                    index
                }
            },
        };
        let mut entry = entry(service, &key, ring_word, to.source_ports, to.sources);
        if let Some(ports) = base_hashed_ports {
            entry.base_hashed_ports = ports;
        }
        to.maps.services.write(index, &entry);
        let applied = Applied {
            key,
            index,
            idle_ticks: entry.idle_ticks,
        };
        self.by_name.insert(name.to_owned(), applied);
        if old.is_some_and(|old| old.index == index) {
            self.write_returns(to, name, service, index);
            return Ok(());
        }
        self.by_key.insert(key, name.to_owned());
        let refused = to.maps.returns.refused();
        self.returns.set(
            &mut to.maps.returns,
            to.backends,
            name,
            answering(service, index),
            None,
        );
        // Before any packet finds it.
        to.maps.returns.check(refused)?;
        let any_port = ServiceKey::any_port(key.family, key.address);
        self.count(to.maps, any_port, |count| count.0 += 1);
        to.maps.services_by_key.set(key, index);
        if let Some(old) = old {
            self.unname(to, name, old);
        }
        Ok(())
    }

    /// Notes where a service of the proxy listens, if it still does.
    pub(crate) fn write_local(
        &mut self,
        maps: &mut Maps,
        name: &str,
        service: Option<&DesiredLocal>,
    ) {
        let new = service.map(|service| {
            let key = service_key(service.address, service.port, Protocol::Tcp);
            ServiceKey::any_port(key.family, key.address)
        });
        let old = match new {
            Some(new) => self.local.insert(name.to_owned(), new),
            None => self.local.remove(name),
        };
        if let Some(new) = new {
            self.count(maps, new, |count| count.1 += 1);
        }
        if let Some(old) = old {
            self.count(maps, old, |count| count.1 -= 1);
        }
    }

    /// Counts the services that have a VIP. What has no port is the kernel's where the proxy
    /// listens on the address too.
    fn count(&mut self, maps: &mut Maps, any_port: ServiceKey, by: impl FnOnce(&mut (u32, u32))) {
        let count = self.any_port.entry(any_port).or_default();
        by(count);
        match *count {
            (1.., 0) => maps.services_by_key.set(any_port, 0),
            (packets, local) => {
                maps.services_by_key.remove(any_port, 0);
                if packets + local == 0 {
                    self.any_port.remove(&any_port);
                }
            }
        }
    }

    fn write_returns(
        &mut self,
        to: &mut Writing<'_>,
        name: &str,
        service: &DesiredService,
        index: u32,
    ) {
        self.returns.set(
            &mut to.maps.returns,
            to.backends,
            name,
            answering(service, index),
            Some(to.longest_idle),
        );
    }

    /// Has a service name another ring.
    pub(crate) fn write_ring(&self, maps: &Maps, name: &str, ring: u64) {
        if let Some(Applied { index, .. }) = self.get(name) {
            let entry = maps.services.read(index);
            maps.services.write(index, &Service { ring, ..entry });
        }
    }

    /// Removes a service.
    pub(crate) fn remove(&mut self, to: &mut Writing<'_>, name: &str) {
        if let Some(old) = self.by_name.remove(name) {
            self.unname(to, name, old);
            let returns = &mut self.returns;
            returns.set(&mut to.maps.returns, to.backends, name, Vec::new(), None);
        }
    }

    /// Has no packet find a service by what its key was, and gives its index back.
    fn unname(&mut self, to: &mut Writing<'_>, name: &str, old: Applied) {
        // Another service may have the key by now.
        if self.by_key.get(&old.key).is_some_and(|now| now == name) {
            self.by_key.remove(&old.key);
        }
        to.maps.services_by_key.remove(old.key, old.index);
        let any_port = ServiceKey::any_port(old.key.family, old.key.address);
        self.count(to.maps, any_port, |count| count.0 -= 1);
        self.ids
            .give_back(old.index, Instant::now(), to.longest_idle);
    }
}

/// Whose answers are a service's.
fn answering(service: &DesiredService, index: u32) -> Vec<Answering> {
    if service.mode != Mode::Nat {
        return Vec::new();
    }
    let pools = service.other_pools.iter().chain([&service.pool]);
    let mut pools: Vec<&String> = pools.collect();
    pools.sort_unstable();
    pools
        .into_iter()
        .map(|pool| Answering {
            index,
            protocol: service.protocol,
            pool: pool.clone(),
        })
        .collect()
}

/// Which flows of a service are remembered.
pub(crate) fn remember(service: &DesiredService) -> Remember {
    let by_slot = matches!(service.algorithm, Algorithm::Maglev | Algorithm::SourceHash);
    match service.mode {
        // Its own tables remember every flow.
        Mode::FullNat => Remember::Never,
        _ if service.affinity.is_some() || !by_slot => Remember::Always,
        _ if service.protocol == Protocol::Tcp => Remember::Changes,
        _ if service.tracking == Tracking::Flow => Remember::Always,
        _ => Remember::Never,
    }
}

/// Bits of [`lb_common::abi::Settings::features`] that these services need.
pub(crate) fn needed_features<'a>(services: impl Iterator<Item = &'a DesiredService>) -> u32 {
    let of = |service: &DesiredService| match service.mode {
        Mode::Nat => features::NAT,
        Mode::FullNat => features::FULL_NAT,
        Mode::Dsr | Mode::Local => 0,
    };
    services.map(of).fold(0, |all, one| all | one)
}

/// The key under which packets find a service.
pub(crate) fn key_of(service: &DesiredService) -> ServiceKey {
    service_key(service.address, service.port, service.protocol)
}

fn entry(
    service: &DesiredService,
    key: &ServiceKey,
    ring: u64,
    (port_first, port_last): (u16, u16),
    sources: &[IpAddr],
) -> Service {
    // IPv4 before IPv6.
    let ipv4 = sources.iter().filter(|source| source.is_ipv4()).count() as u32;
    let all = sources.len() as u32;
    let (source_first, source_count) = match (service.mode, service.address) {
        (Mode::FullNat, IpAddr::V4(_)) => (0, ipv4),
        (Mode::FullNat, IpAddr::V6(_)) => (ipv4, all - ipv4),
        _ => (0, 0),
    };
    let die_silently = match service.on_death {
        OnDeath::Silent => service_flags::DIE_SILENTLY,
        OnDeath::Reset => 0,
    };
    let refuse_silently = match service.on_empty {
        OnEmpty::Drop => service_flags::REFUSE_SILENTLY,
        OnEmpty::Reset => 0,
    };
    Service {
        ring,
        address: key.address,
        port: key.port,
        protocol: key.protocol,
        family: key.family,
        mode: match service.mode {
            Mode::Nat => mode::NAT,
            Mode::FullNat => mode::FULL_NAT,
            // `Local` is never here: see `Desired::services`.
            Mode::Dsr | Mode::Local => mode::DSR,
        },
        algorithm: match service.algorithm {
            Algorithm::Maglev | Algorithm::SourceHash => algorithm::HASH,
            Algorithm::RoundRobin => algorithm::ROUND_ROBIN,
            Algorithm::LeastConnections => algorithm::LEAST_CONNECTIONS,
            Algorithm::Random => algorithm::RANDOM,
        },
        flags: die_silently | refuse_silently,
        reserved: 0,
        source_first,
        source_count,
        port_first,
        port_last,
        idle_ticks: ticks(service.idle_timeout),
        hashed_ports: hashed_ports(service),
        base_hashed_ports: hashed_ports(service),
        affinity_ticks: service.affinity.map_or(0, ticks),
        reserved2: 0,
    }
}

/// [`Service::hashed_ports`] of a service.
pub(crate) fn hashed_ports(service: &DesiredService) -> u32 {
    match service.algorithm {
        Algorithm::SourceHash => 0,
        _ => u32::MAX,
    }
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(u128::from(TICK_NS))).unwrap_or(u32::MAX)
}
