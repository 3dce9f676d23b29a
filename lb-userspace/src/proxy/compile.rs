//! From configuration and desired state to a snapshot. What is counted lives on from one to the
//! next.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use lb_common::maglev::{self, log2_slots};

use super::{
    backend::Backend,
    listen::Listeners,
    snapshot::{Listener, Member, Pool, Service, Snapshot},
    stats::ServiceStats,
};
use crate::{config::Config, dataplane::identity_at, desired::Desired};

/// A backend by pool, name and address.
type Key = (String, String, SocketAddr);

/// What outlives a snapshot.
pub(crate) struct Registry {
    workers: usize,
    backends: HashMap<Key, Arc<Backend>>,
    services: HashMap<String, Arc<ServiceStats>>,
}

impl Registry {
    /// Nothing yet.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            backends: HashMap::new(),
            services: HashMap::new(),
        }
    }

    /// A service's counters.
    pub(crate) fn service(&self, name: &str) -> Option<&Arc<ServiceStats>> {
        self.services.get(name)
    }

    /// A pool's backends of this name: more than one while requests to its old address last.
    pub(crate) fn backends<'a>(
        &'a self,
        pool: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Backend>> {
        let all = self.backends.values();
        all.filter(move |backend| backend.pool == pool && backend.name == name)
    }

    /// What the workers are to work by.
    pub(crate) fn snapshot(
        &mut self,
        config: &Config,
        desired: &Desired,
        listeners: &Listeners,
    ) -> Snapshot {
        self.services
            .retain(|name, _| desired.local.contains_key(name));
        let mut pools: HashMap<&str, Arc<Pool>> = HashMap::new();
        let mut used = HashSet::new();
        let mut snapshot = BTreeMap::new();
        for (name, local) in &desired.local {
            let Some(service) = config.services.get(name) else {
                continue;
            };
            let address = SocketAddr::new(local.address, local.port);
            let Some(sockets) = listeners.get(&address) else {
                continue;
            };
            let names = std::iter::once(local.pool.as_str()).chain(service.http.pools());
            let mut of_service: Vec<Arc<Pool>> = Vec::new();
            for pool in names {
                if of_service.iter().all(|known| known.name != pool) {
                    let compiled = pools
                        .entry(pool)
                        .or_insert_with(|| self.pool(config, desired, pool, &mut used));
                    of_service.push(compiled.clone());
                }
            }
            let stats = self
                .services
                .entry(name.clone())
                .or_insert_with(|| Arc::new(ServiceStats::new(self.workers)));
            let listener = Listener {
                sockets: sockets.clone(),
                service: Arc::new(Service {
                    name: name.clone(),
                    http: Arc::new(service.http.clone()),
                    pools: of_service,
                    stats: stats.clone(),
                }),
            };
            snapshot.insert(address, listener);
        }
        // Requests that are under way hold theirs.
        self.backends
            .retain(|key, backend| used.contains(key) || backend.in_flight() > 0);
        Snapshot {
            listeners: snapshot,
        }
    }

    fn pool(
        &mut self,
        config: &Config,
        desired: &Desired,
        name: &str,
        used: &mut HashSet<Key>,
    ) -> Arc<Pool> {
        let settings = config.pools.get(name);
        let backends = desired
            .pools
            .get(name)
            .into_iter()
            .flat_map(|pool| pool.iter());
        let members: Vec<Member> = backends
            .map(|(backend, desired)| {
                let address = SocketAddr::new(desired.address, desired.port);
                let key = (name.to_owned(), backend.clone(), address);
                used.insert(key.clone());
                let workers = self.workers;
                let shared = self
                    .backends
                    .entry(key)
                    .or_insert_with(|| Arc::new(Backend::new(name, backend, address, workers)));
                Member {
                    backend: shared.clone(),
                    condition: desired.condition,
                    weight: desired.weight,
                }
            })
            .collect();
        let (turns, slots) = tables(&members);
        Arc::new(Pool {
            name: name.to_owned(),
            http: Arc::new(settings.map(|pool| pool.http.clone()).unwrap_or_default()),
            floor_percent: settings.map_or(0, |pool| pool.health_floor_percent),
            members,
            turns,
            slots,
        })
    }
}

/// Turns and hash slots: places of members, as in the packet path's rings.
fn tables(members: &[Member]) -> (Vec<u32>, Vec<u32>) {
    let taking: Vec<maglev::Member> = (1..)
        .zip(members)
        .filter(|(_, member)| member.takes_requests())
        .map(|(id, member)| maglev::Member {
            key: identity_at(member.backend.address.ip(), member.backend.address.port()),
            id,
            weight: member.weight,
        })
        .collect();
    if taking.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let size = log2_slots(taking.len());
    let places = |ids: Vec<u32>| ids.into_iter().map(|id| id - 1).collect();
    (
        places(maglev::in_turns(&taking, size)),
        places(maglev::build(&taking, size)),
    )
}
