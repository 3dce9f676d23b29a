//! What the rules between services and pools ask about, kept while the configuration changes.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{Pool, Service};
use crate::desired::{Mode, Protocol};

/// A VIP: address, protocol and port.
type Endpoint = (IpAddr, Protocol, u16);

/// Who uses what.
#[derive(Default)]
pub(super) struct Index {
    /// Number of backends in all pools.
    pub(super) backends: usize,
    /// By the pools that they name, services by name.
    users: HashMap<String, BTreeMap<String, User>>,
    /// Number of services by VIP.
    vips: HashMap<Endpoint, usize>,
    /// Names of the pools that have a backend here, once for each.
    pools: HashMap<SocketAddr, Vec<Arc<str>>>,
}

/// What a service asks of its pools.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) mode: Mode,
}

impl Index {
    pub(super) fn add_service(&mut self, name: &str, service: &Service) {
        *self.vips.entry(endpoint(service)).or_default() += 1;
        let user = User {
            address: service.address,
            port: service.port,
            protocol: service.protocol,
            mode: service.mode,
        };
        for pool in service.pools() {
            let users = self.users.entry(pool.to_owned()).or_default();
            users.insert(name.to_owned(), user);
        }
    }

    pub(super) fn remove_service(&mut self, name: &str, service: &Service) {
        if let Some(count) = self.vips.get_mut(&endpoint(service)) {
            *count -= 1;
            if *count == 0 {
                self.vips.remove(&endpoint(service));
            }
        }
        for pool in service.pools() {
            if let Some(users) = self.users.get_mut(pool) {
                users.remove(name);
                if users.is_empty() {
                    self.users.remove(pool);
                }
            }
        }
    }

    pub(super) fn add_pool(&mut self, name: &str, pool: &Pool) {
        let name = Arc::from(name);
        for backend in pool.backends.values() {
            self.add(&name, backend.address);
        }
    }

    pub(super) fn remove_pool(&mut self, name: &str, pool: &Pool) {
        for backend in pool.backends.values() {
            self.remove_backend(name, backend.address);
        }
    }

    pub(super) fn add_backend(&mut self, pool: &str, address: SocketAddr) {
        self.add(&Arc::from(pool), address);
    }

    fn add(&mut self, pool: &Arc<str>, address: SocketAddr) {
        self.backends += 1;
        self.pools.entry(address).or_default().push(pool.clone());
    }

    pub(super) fn remove_backend(&mut self, pool: &str, address: SocketAddr) {
        self.backends -= 1;
        let Some(pools) = self.pools.get_mut(&address) else {
            return;
        };
        if let Some(place) = pools.iter().position(|other| **other == *pool) {
            pools.swap_remove(place);
        }
        if pools.is_empty() {
            self.pools.remove(&address);
        }
    }

    /// Services that name a pool.
    pub(super) fn users(&self, pool: &str) -> impl Iterator<Item = (&str, User)> {
        let users = self.users.get(pool).into_iter().flatten();
        users.map(|(name, user)| (name.as_str(), *user))
    }

    /// Whether no other service has the VIP of this one.
    pub(super) fn is_only(&self, service: &Service) -> bool {
        self.vips.get(&endpoint(service)) == Some(&1)
    }

    /// Pools that have a backend at an address, once for each.
    pub(super) fn pools_at(&self, address: SocketAddr) -> &[Arc<str>] {
        self.pools.get(&address).map_or(&[], Vec::as_slice)
    }
}

fn endpoint(service: &Service) -> Endpoint {
    (service.address, service.protocol, service.port)
}
