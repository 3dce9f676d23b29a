//! Making the maps say what is desired: compile, compare with what they say, write the
//! difference. What is new is written before anything names it, and what goes is unnamed
//! before it is freed, so that a packet finds either the old or the new, whole.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    address::to_abi,
    backends::Backends,
    clock,
    loader::Maps,
    next_hops::NextHops,
    options::Limits,
    raw::Raw,
    rings::{Rings, Wanted},
    services::{self, Services},
};
use crate::desired::{Algorithm, Desired, OnDeath};

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
    sources: Vec<IpAddr>,
    longest_idle: Duration,
}

impl Applied {
    /// Empty maps of these sizes.
    pub(crate) fn new(limits: Limits, rings: Rings) -> Self {
        Self {
            limits,
            services: Services::new(limits.services),
            backends: Backends::new(limits.backends),
            rings,
            sources: Vec::new(),
            longest_idle: Duration::ZERO,
        }
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
        let now = Instant::now();
        self.check(desired, now)?;
        self.longest_idle = desired
            .services
            .values()
            .map(|service| service.idle_timeout)
            .fold(self.longest_idle, Duration::max);
        self.write_sources(maps, desired)?;
        let members = self.backends.write(maps, next_hops, desired, now)?;
        self.backends.retire(maps, desired, now, self.longest_idle);
        let wanted = desired.services.iter().filter_map(|(name, service)| {
            Some(Wanted {
                service: name,
                pool: &service.pool,
                members: members.get(service.pool.as_str())?,
                in_turns: service.algorithm == Algorithm::RoundRobin,
                remember: services::remember(service),
                silent: service.on_death == OnDeath::Silent,
            })
        });
        let backends = &self.backends;
        let tick = clock::tick().context("reading the clock")?;
        self.rings.set(wanted, tick, |id| backends.is_dead(id))?;
        let (rings, sources) = (&self.rings, &self.sources);
        let ring_word = |name: &str| rings.word(name);
        self.services
            .write(maps, desired, ring_word, sources, self.longest_idle)?;
        self.services.write_keys(maps, desired, &self.backends)?;
        let mut settings = maps.settings.read(0);
        settings.features = services::needed_features(desired);
        maps.settings.write(0, &settings);
        self.rings
            .keep(|service| desired.services.contains_key(service));
        Ok(())
    }

    fn check(&self, desired: &Desired, now: Instant) -> Result<(), ApplyError> {
        if !self.sources.is_empty() && self.sources != sorted(&desired.source_addresses) {
            return Err(ApplyError::Fixed("agent.full_nat.addresses"));
        }
        let services = self.services.demand(desired, now);
        let backends = self.backends.demand(desired, now);
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
}

/// IPv4 before IPv6, so that each family's are in a row.
fn sorted(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    addresses
}
