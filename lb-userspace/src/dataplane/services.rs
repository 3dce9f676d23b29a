//! Services: their indexes, their entries, and the keys under which packets find them.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lb_common::{
    abi::{Service, ServiceKey, TICK_NS, algorithm, features, mode, service_flags},
    ring::Remember,
};

use super::{address::service_key, backends::Backends, ids::Ids, loader::Maps};
use crate::desired::{
    Algorithm, Desired, DesiredService, Mode, OnDeath, OnEmpty, Protocol, Tracking,
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
}

impl Services {
    /// None yet, and at most so many.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            ids: Ids::new(limit),
            by_name: BTreeMap::new(),
        }
    }

    /// How many of the desired ones need a new index, and how many indexes are free.
    pub(crate) fn demand(&self, desired: &Desired, now: Instant) -> (usize, usize) {
        let new = desired.services.iter().filter(|(name, service)| {
            let applied = self.by_name.get(name.as_str());
            applied.is_none_or(|applied| applied.key != key_of(service))
        });
        (new.count(), self.ids.available(now))
    }

    /// All, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Applied)> {
        self.by_name
            .iter()
            .map(|(name, applied)| (name.as_str(), *applied))
    }

    /// The one with a VIP.
    pub(crate) fn find(&self, key: &ServiceKey) -> Option<(&str, Applied)> {
        self.iter().find(|(_, applied)| applied.key == *key)
    }

    /// Writes every service's entry, with the word of its ring.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn write(
        &mut self,
        maps: &mut Maps,
        desired: &Desired,
        ring_word: impl Fn(&str) -> u64,
        sources: &[IpAddr],
        longest_idle: Duration,
    ) -> anyhow::Result<()> {
        let now = Instant::now();
        for (name, service) in &desired.services {
            let key = key_of(service);
            let index = match self.by_name.get(name) {
                Some(applied) if applied.key == key => applied.index,
                old => {
                    if let Some(old) = old {
                        self.ids.give_back(old.index, now, longest_idle);
                    }
                    let index = self.ids.take(now).context("no service index is left")?;
                    maps.reset_service_counters(index)?;
                    index
                }
            };
            let entry = entry(
                service,
                &key,
                ring_word(name),
                desired.source_ports,
                sources,
            );
            maps.services.write(index, &entry);
            let applied = Applied {
                key,
                index,
                idle_ticks: entry.idle_ticks,
            };
            self.by_name.insert(name.clone(), applied);
        }
        self.by_name.retain(|name, applied| {
            let kept = desired.services.contains_key(name);
            if !kept {
                self.ids.give_back(applied.index, now, longest_idle);
            }
            kept
        });
        Ok(())
    }

    /// Writes the VIPs, each VIP's address alone for what has no port, and the way back of
    /// `nat`: a backend's address and port to its service. What has no port is the kernel's
    /// where the proxy listens on the address too.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn write_keys(
        &self,
        maps: &mut Maps,
        desired: &Desired,
        backends: &Backends,
    ) -> anyhow::Result<()> {
        let mut returns = BTreeMap::new();
        for (name, service) in &desired.services {
            let Some(applied) = self.by_name.get(name) else {
                continue;
            };
            if service.mode != Mode::Nat {
                continue;
            }
            let pools = || service.other_pools.iter().chain([&service.pool]);
            let live = pools().filter_map(|pool| desired.pools.get(pool)).flatten();
            let live = live.map(|(_, backend)| (backend.address, backend.port));
            let retired = backends
                .retired()
                .filter(|key| pools().any(|pool| key.pool == *pool))
                .map(|key| (key.address, key.port));
            for (address, port) in retired.chain(live) {
                returns.insert(service_key(address, port, service.protocol), applied.index);
            }
        }
        maps.returns.hold(returns).context("return keys")?;
        let mut keys = BTreeMap::new();
        for Applied { key, index, .. } in self.by_name.values() {
            keys.insert(*key, *index);
            keys.insert(ServiceKey::any_port(key.family, key.address), 0);
        }
        for local in desired.local.values() {
            let key = service_key(local.address, local.port, Protocol::Tcp);
            keys.remove(&ServiceKey::any_port(key.family, key.address));
        }
        maps.services_by_key.hold(keys).context("service keys")
    }
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
pub(crate) fn needed_features(desired: &Desired) -> u32 {
    let of = |service: &DesiredService| match service.mode {
        Mode::Nat => features::NAT,
        Mode::FullNat => features::FULL_NAT,
        Mode::Dsr | Mode::Local => 0,
    };
    desired
        .services
        .values()
        .map(of)
        .fold(0, |all, one| all | one)
}

fn key_of(service: &DesiredService) -> ServiceKey {
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
        hashed_ports: match service.algorithm {
            Algorithm::SourceHash => 0,
            _ => u32::MAX,
        },
        affinity_ticks: service.affinity.map_or(0, ticks),
        reserved2: [0; 2],
    }
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(u128::from(TICK_NS))).unwrap_or(u32::MAX)
}
