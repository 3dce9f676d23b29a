//! From what has changed to what the data path is told.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Refused, compile,
    conditions::{Conditions, conditions},
    owner::Owner,
};
use crate::{
    config::{Live, Service},
    dataplane::ApplyError,
    desired::{Delta, Mode},
    events::{self, Kind},
};

impl Owner {
    /// Has the data path do what the configuration says of these services and pools, with what
    /// is known of health; and of services whose pool has failed or come back by that.
    pub(super) fn apply(
        &mut self,
        mut services: BTreeSet<String>,
        mut pools: BTreeSet<String>,
    ) -> Result<(), Refused> {
        let mut delta = Delta::default();
        self.add_pools_of(&services, &mut pools);
        let touched = self.depended_on(&services, &pools);
        let of_pools =
            |live: &Live, pool: &String| live.users(pool).any(|user| is_local(live, user));
        let mut for_proxy = pools.iter().any(|pool| of_pools(&self.live, pool));
        let mut new_conditions = BTreeMap::new();
        for name in pools {
            let Some(pool) = self.live.config().pools.get(&name) else {
                if self.desired.pools.contains_key(&name) {
                    delta.pools.insert(name.clone(), None);
                }
                self.ramps.keep(&name, |_| false);
                new_conditions.insert(name, None);
                continue;
            };
            let forwarded = is_forwarded(&self.live, &name);
            let reach = forwarded.then_some(|address| self.reach.health(address));
            let new = conditions(&name, pool, &self.verdicts, &self.drains, reach);
            if self.waiting.contains(&name) && new.checked {
                delta.begun.insert(name.clone());
            }
            let was_down = self.conditions.get(&name).is_some_and(|old| old.down);
            if was_down != new.down {
                services.extend(self.live.users(&name).map(str::to_owned));
            }
            let mut desired = compile::pool(&name, pool, &new, &self.ramps);
            let old = self.desired.pools.get(&name);
            if old.is_some_and(|old| self.ramps.begin(&name, pool, old, &desired)) {
                desired = compile::pool(&name, pool, &new, &self.ramps);
            }
            if old.is_none_or(|old| **old != desired) {
                delta.pools.insert(name.clone(), Some(desired.into()));
            }
            new_conditions.insert(name, Some(new));
        }
        for name in services {
            let is_down = |pool: &str| {
                let new = new_conditions.get(pool).and_then(Option::as_ref);
                let known = new.or_else(|| self.conditions.get(pool));
                known.is_some_and(|pool| pool.down)
            };
            let service = self.live.config().services.get(&name);
            let service = service.map(|service| (service, compile::serving(service, is_down)));
            for_proxy |= is_local(&self.live, &name) || self.desired.local.contains_key(&name);
            let of_proxy = |service: &Service| service.mode == Mode::Local;
            let packets = service.filter(|(service, _)| !of_proxy(service));
            let packets = packets.map(|(service, pool)| compile::service(service, pool));
            if self.desired.services.get(&name) != packets.as_ref() {
                delta.services.insert(name.clone(), packets);
            }
            let local = service.filter(|(service, _)| of_proxy(service));
            let local = local.map(|(service, pool)| compile::local(service, pool));
            if self.desired.local.get(&name) != local.as_ref() {
                delta.local.insert(name, local);
            }
        }
        let begun = delta.begun.clone();
        self.tell(delta, for_proxy)?;
        self.waiting.retain(|name| !begun.contains(name));
        for (name, new) in new_conditions {
            self.note(name, new);
        }
        self.tell_of_service(touched);
        Ok(())
    }

    /// Adds pools that packets are forwarded to as these services are now, and were not before, or
    /// the other way round: their backends' next hops begin or cease to matter.
    fn add_pools_of(&self, services: &BTreeSet<String>, pools: &mut BTreeSet<String>) {
        let config = self.live.config();
        for name in services {
            let new = config.services.get(name).into_iter();
            let old = self.desired.services.get(name).into_iter();
            let new = new.flat_map(Service::pools);
            let old = old.flat_map(|old| old.other_pools.iter().chain([&old.pool]));
            for pool in new.chain(old.map(String::as_str)) {
                let known = self.conditions.get(pool);
                if known.is_some_and(|known| known.forwarded != is_forwarded(&self.live, pool)) {
                    pools.insert(pool.to_owned());
                }
            }
        }
    }

    /// `for_proxy`: something is touched that the proxy serves.
    fn tell(&mut self, delta: Delta, for_proxy: bool) -> Result<(), Refused> {
        if delta.is_empty() && !for_proxy && !self.dataplane.is_unfinished() {
            return Ok(());
        }
        let back = self.desired.change(delta.clone());
        let ready = for_proxy.then(|| self.proxy.prepare(self.live.config(), &self.desired));
        let ready = match ready.transpose() {
            Ok(ready) => ready,
            Err(error) => {
                self.desired.change(back);
                return Err(error.into());
            }
        };
        let Err(error) = self.dataplane.change(delta) else {
            let commit = |ready| self.proxy.commit(ready);
            return ready.map_or(Ok(()), commit).map_err(Refused::Proxy);
        };
        self.desired.change(back.clone());
        if let ApplyError::Kernel(_) = error {
            // A part of it may be done; what cannot be undone now is tried again later.
            if let Err(error) = self.dataplane.change(back) {
                tracing::warn!("undoing a change of the data path: {error}");
            }
        }
        Err(error.into())
    }

    fn note(&mut self, pool: String, new: Option<Conditions>) {
        let Some(new) = new else {
            self.conditions.remove(&pool);
            return;
        };
        let below = new.below_floor;
        let old = self.conditions.insert(pool.clone(), new);
        match (old.is_some_and(|old| old.below_floor), below) {
            (false, true) => events::warn(
                Kind::Floor,
                pool,
                "too much of the pool fails its checks or cannot be reached: the failed are used too",
            ),
            (true, false) => events::info(
                Kind::Floor,
                pool,
                "the pool is above its health floor again",
            ),
            _ => {}
        }
    }
}

/// Whether packets are forwarded to a pool.
pub(super) fn is_forwarded(live: &Live, pool: &str) -> bool {
    live.users(pool).any(|user| !is_local(live, user))
}

/// Whether the proxy serves a service.
fn is_local(live: &Live, service: &str) -> bool {
    let service = live.config().services.get(service);
    service.is_some_and(|service| service.mode == Mode::Local)
}
