//! The way back of `nat`: each backend's address and port to its service, in the map `RETURNS`.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use lb_common::abi::ServiceKey;

use super::{address::service_key, backends::Backends, keys::Keys};
use crate::desired::Protocol;

/// Who answers for a service: the backends of these pools, live and removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answering {
    /// The service's index.
    pub(crate) index: u32,
    /// Its protocol.
    pub(crate) protocol: Protocol,
    /// A pool; a service has one of these for each of its pools.
    pub(crate) pool: String,
}

/// Which service each answer belongs to.
#[derive(Default)]
pub(crate) struct Returns {
    by_service: HashMap<String, Vec<Answering>>,
    /// What services had before: connections may live on, until when.
    lingering: Vec<(Instant, Answering)>,
    /// By pool, what `by_service` and `lingering` say of it.
    by_pool: HashMap<String, Vec<Answering>>,
    /// How many backends of those give a service this key.
    claims: HashMap<(ServiceKey, u32), u32>,
}

impl Returns {
    /// Makes it so that these answer for a service, and no others; those that did before, if they
    /// are others. They still do for `linger`, if that is given: their connections may live on.
    pub(crate) fn set(
        &mut self,
        keys: &mut Keys,
        backends: &Backends,
        service: &str,
        new: Vec<Answering>,
        linger: Option<Duration>,
    ) -> Option<Vec<Answering>> {
        let old = self.by_service.get(service).cloned().unwrap_or_default();
        if old == new {
            return None;
        }
        self.by_service.insert(service.to_owned(), new.clone());
        for answering in new.iter().filter(|new| !old.contains(new)) {
            let of_pool = self.by_pool.entry(answering.pool.clone()).or_default();
            of_pool.push(answering.clone());
            for endpoint in backends.endpoints(&answering.pool) {
                self.claim(keys, answering, endpoint);
            }
        }
        for answering in old.iter().filter(|old| !new.contains(old)) {
            match linger {
                Some(linger) => {
                    let until = Instant::now() + linger;
                    self.lingering.push((until, answering.clone()));
                }
                None => self.drop(keys, backends, answering),
            }
        }
        if new.is_empty() {
            self.by_service.remove(service);
        }
        Some(old)
    }

    /// Backends have joined a pool.
    pub(crate) fn joined(&mut self, keys: &mut Keys, pool: &str, endpoints: &[(IpAddr, u16)]) {
        for answering in self.by_pool.get(pool).cloned().unwrap_or_default() {
            for &endpoint in endpoints {
                self.claim(keys, &answering, endpoint);
            }
        }
    }

    /// A backend of a pool has left, with all its flows.
    pub(crate) fn left(&mut self, keys: &mut Keys, pool: &str, endpoint: (IpAddr, u16)) {
        for answering in self.by_pool.get(pool).cloned().unwrap_or_default() {
            self.release(keys, &answering, endpoint);
        }
    }

    /// Ends what need not be known any more.
    pub(crate) fn tidy(&mut self, keys: &mut Keys, backends: &Backends) {
        let now = Instant::now();
        let over: Vec<_> = (self.lingering)
            .extract_if(.., |(until, _)| *until <= now)
            .collect();
        for (_, answering) in &over {
            self.drop(keys, backends, answering);
        }
    }

    fn drop(&mut self, keys: &mut Keys, backends: &Backends, answering: &Answering) {
        if let Some(of_pool) = self.by_pool.get_mut(&answering.pool) {
            // One only: it may linger and have come back.
            if let Some(place) = of_pool.iter().position(|other| other == answering) {
                of_pool.swap_remove(place);
            }
            if of_pool.is_empty() {
                self.by_pool.remove(&answering.pool);
            }
        }
        for endpoint in backends.endpoints(&answering.pool) {
            self.release(keys, answering, endpoint);
        }
    }

    fn claim(&mut self, keys: &mut Keys, answering: &Answering, endpoint: (IpAddr, u16)) {
        let key = service_key(endpoint.0, endpoint.1, answering.protocol);
        *self.claims.entry((key, answering.index)).or_default() += 1;
        keys.set(key, answering.index);
    }

    fn release(&mut self, keys: &mut Keys, answering: &Answering, endpoint: (IpAddr, u16)) {
        let key = service_key(endpoint.0, endpoint.1, answering.protocol);
        let claim = (key, answering.index);
        let Some(count) = self.claims.get_mut(&claim) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.claims.remove(&claim);
        keys.remove(key, answering.index);
    }
}
