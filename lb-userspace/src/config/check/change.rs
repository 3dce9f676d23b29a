//! Whether a change may have broken a rule, for the price of the change: [`Config::check`]
//! looks at everything, and says what is wrong.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use super::{Config, Problems, family, pool, service};
use crate::{
    config::{Backend, Pool, Service, index::Index, live::Touched},
    desired::{Mode, Protocol},
};

/// Whether the touched parts of a configuration that kept the rules before may break one now.
/// There may be nothing wrong; but if this says no, there is not.
pub(in crate::config) fn may_break(config: &Config, index: &Index, touched: &Touched) -> bool {
    let limits = &config.agent.limits;
    let mut suspect = Suspect {
        config,
        index,
        problems: Problems::default(),
        needs: HashMap::new(),
    };
    config.services.len() > limits.services as usize
        || index.backends > limits.backends as usize
        || touched.services.iter().any(|name| suspect.service(name))
        || (config.ha.tracked_services()).any(|name| !config.services.contains_key(name))
        || touched.pools.iter().any(|(name, touched)| match touched {
            Some(backends) => suspect.backends(name, backends),
            None => suspect.pool(name),
        })
        || !suspect.problems.0.is_empty()
}

struct Suspect<'a> {
    config: &'a Config,
    index: &'a Index,
    /// What rules of single things say.
    problems: Problems,
    needs: HashMap<&'a str, Needs>,
}

/// What the services that name a pool need of its backends.
#[derive(Default)]
struct Needs {
    ipv4: bool,
    ipv6: bool,
    vips: BTreeSet<IpAddr>,
    dsr_ports: BTreeSet<u16>,
    /// Number of services of mode `nat`, and of these and `full-nat` together.
    rewriting: BTreeMap<Protocol, (usize, usize)>,
}

impl<'a> Suspect<'a> {
    fn service(&mut self, name: &str) -> bool {
        let Some(service) = self.config.services.get(name) else {
            return false;
        };
        service::check(&mut self.problems, self.config, name, service);
        let pools = service.pools();
        let pools: Vec<_> = pools
            .filter_map(|name| self.config.pools.get_key_value(name))
            .collect();
        !self.index.is_only(service)
            || self.has_wrong_source(service)
            || pools
                .into_iter()
                .any(|(name, pool)| self.any_of(name, pool.backends.values()))
    }

    fn has_wrong_source(&self, service: &Service) -> bool {
        let full_nat = &self.config.agent.full_nat;
        let (first, last) = full_nat.ports;
        let mut sources = full_nat.addresses.iter().chain(&full_nat.peer_addresses);
        let is_source = sources.any(|source| *source == service.address)
            && (first..=last).contains(&service.port);
        let ours = family(service.address);
        let mut families = full_nat.addresses.iter().map(|address| family(*address));
        is_source || service.mode == Mode::FullNat && families.all(|family| family != ours)
    }

    fn pool(&mut self, name: &'a str) -> bool {
        let Some(found) = self.config.pools.get(name) else {
            return self.index.users(name).next().is_some();
        };
        pool::settings(&mut self.problems, name, found);
        for (backend, config) in &found.backends {
            pool::backend(&mut self.problems, name, backend, config);
        }
        self.any_of(name, found.backends.values())
    }

    fn backends(&mut self, name: &'a str, touched: &BTreeSet<String>) -> bool {
        let Some(Pool { backends, .. }) = self.config.pools.get(name) else {
            return true;
        };
        let touched = touched
            .iter()
            .filter_map(|name| backends.get_key_value(name));
        let touched: Vec<_> = touched.collect();
        for (backend, config) in &touched {
            pool::backend(&mut self.problems, name, backend, config);
        }
        self.any_of(name, touched.into_iter().map(|(_, backend)| backend))
    }

    /// Whether any of a pool's backends may break a rule of its services, or is there twice.
    fn any_of(&mut self, pool: &'a str, mut backends: impl Iterator<Item = &'a Backend>) -> bool {
        backends.any(|backend| {
            let address = backend.address;
            let there = self.index.pools_at(address);
            let twice = there.iter().filter(|other| ***other == *pool).count() > 1;
            let needs = self.needs(pool);
            let family = match address {
                SocketAddr::V4(_) => needs.ipv6,
                SocketAddr::V6(_) => needs.ipv4,
            };
            let port = needs.dsr_ports.iter().any(|port| *port != address.port());
            twice || family || port || needs.vips.contains(&address.ip()) || self.shared(address)
        })
    }

    /// Whether a backend that a `nat` service has may have another service of `nat` or
    /// `full-nat`.
    fn shared(&mut self, address: SocketAddr) -> bool {
        let index = self.index;
        let mut all: BTreeMap<Protocol, (usize, usize)> = BTreeMap::new();
        for pool in index.pools_at(address) {
            let Some((pool, _)) = self.config.pools.get_key_value(&**pool) else {
                return true;
            };
            for (protocol, (nat, both)) in &self.needs(pool).rewriting {
                let all = all.entry(*protocol).or_default();
                *all = (all.0 + nat, all.1 + both);
            }
        }
        let many = |(nat, both): &(usize, usize)| *nat > 0 && *both > 1;
        let mut many = all.iter().filter(|(_, counts)| many(counts));
        many.any(|(protocol, _)| {
            // A service may name two of the pools.
            let users = index.pools_at(address).iter();
            let users = users.flat_map(|pool| index.users(pool));
            let users = users.filter(|(_, user)| {
                matches!(user.mode, Mode::Nat | Mode::FullNat) && user.protocol == *protocol
            });
            let users: BTreeSet<&str> = users.map(|(name, _)| name).collect();
            users.len() > 1
        })
    }

    fn needs(&mut self, pool: &'a str) -> &Needs {
        let users = || self.index.users(pool).map(|(_, user)| user);
        self.needs.entry(pool).or_insert_with(|| {
            let mut needs = Needs::default();
            for user in users() {
                needs.vips.insert(user.address);
                match user.address {
                    // Its connections to backends are its own.
                    _ if user.mode == Mode::Local => continue,
                    IpAddr::V4(_) => needs.ipv4 = true,
                    IpAddr::V6(_) => needs.ipv6 = true,
                }
                let rewriting = needs.rewriting.entry(user.protocol).or_default();
                match user.mode {
                    Mode::Dsr => drop(needs.dsr_ports.insert(user.port)),
                    Mode::Local => {}
                    Mode::Nat => *rewriting = (rewriting.0 + 1, rewriting.1 + 1),
                    Mode::FullNat => rewriting.1 += 1,
                }
            }
            needs
        })
    }
}
