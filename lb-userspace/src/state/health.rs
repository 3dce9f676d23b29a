//! What the health checks said last, by pool and backend.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{handover::KnownHealth, view::HealthView};
use crate::{
    config::{Config, Pool},
    dataplane::DataPlane,
    desired::Condition,
    health::{Change, Health},
};

/// The last verdict on each backend that has one.
#[derive(Default)]
pub(super) struct Verdicts(BTreeMap<String, BTreeMap<String, Verdict>>);

struct Verdict {
    address: SocketAddr,
    health: Health,
    /// Whether it has ever been seen healthy.
    lived: bool,
    reason: String,
    since: SystemTime,
}

impl Verdicts {
    /// Notes a verdict on the backend that is at an address now.
    pub(super) fn note(&mut self, change: Change, address: SocketAddr) {
        let pool = self.0.entry(change.pool).or_default();
        let before = pool.get(&change.backend);
        let lived = change.health == Health::Healthy || before.is_some_and(|last| last.lived);
        pool.insert(
            change.backend,
            Verdict {
                address,
                health: change.health,
                lived,
                reason: change.reason,
                since: SystemTime::now(),
            },
        );
    }

    /// Begins with what an earlier agent has seen last, until the first checks have ended: so
    /// that what has failed is not used again meanwhile, and what works is used on.
    pub(super) fn inherit(&mut self, config: &Config, dataplane: &DataPlane) {
        let pools = config.pools.iter();
        for (name, pool) in pools.filter(|(_, pool)| pool.health_check.is_some()) {
            for (backend, config) in &pool.backends {
                let at = (config.address.ip(), config.address.port());
                let health = match dataplane.inherited(name, backend, at) {
                    Some(Condition::InUse) => Health::Healthy,
                    Some(Condition::Dead | Condition::Absent) => Health::Unhealthy,
                    Some(Condition::Draining) | None => continue,
                };
                let change = Change {
                    pool: name.clone(),
                    backend: backend.clone(),
                    health,
                    reason: "as the agent before this one saw it".to_owned(),
                };
                self.note(change, config.address);
                let verdicts = self.0.get_mut(name);
                if let Some(verdict) = verdicts.and_then(|all| all.get_mut(backend)) {
                    // It may have had connections then.
                    verdict.lived = true;
                }
            }
        }
    }

    /// The last verdict on a backend, for the agent that takes over.
    pub(super) fn known(&self, pool: &str, backend: &str) -> Option<KnownHealth> {
        let verdict = self.0.get(pool)?.get(backend)?;
        Some(KnownHealth {
            address: verdict.address,
            health: verdict.health,
            lived: verdict.lived,
            reason: verdict.reason.clone(),
            since: verdict.since,
        })
    }

    /// Notes what [`Verdicts::known`] said at the agent before this one.
    pub(super) fn learn(&mut self, pool: String, backend: String, known: KnownHealth) {
        let verdict = Verdict {
            address: known.address,
            health: known.health,
            lived: known.lived,
            reason: known.reason,
            since: known.since,
        };
        self.0.entry(pool).or_default().insert(backend, verdict);
    }

    /// Forgets verdicts on what of a pool's touched backends (`None`: of all) is not checked any
    /// more, or is another server now; whether there were any.
    pub(super) fn keep(
        &mut self,
        name: &str,
        pool: Option<&Pool>,
        touched: Option<&BTreeSet<String>>,
    ) -> bool {
        let Some(verdicts) = self.0.get_mut(name) else {
            return false;
        };
        let before = verdicts.len();
        let checked = pool.filter(|pool| pool.health_check.is_some());
        let same = |backend: &str, verdict: &Verdict| {
            let config = checked.and_then(|pool| pool.backends.get(backend));
            config.is_some_and(|config| config.address == verdict.address)
        };
        match touched {
            None => verdicts.retain(|backend, verdict| same(backend, verdict)),
            Some(touched) => {
                for backend in touched {
                    if verdicts
                        .get(backend)
                        .is_some_and(|verdict| !same(backend, verdict))
                    {
                        verdicts.remove(backend);
                    }
                }
            }
        }
        let forgot = verdicts.len() < before;
        if verdicts.is_empty() {
            self.0.remove(name);
        }
        forgot
    }

    /// The last verdict on a backend.
    pub(super) fn health(&self, pool: &str, backend: &str) -> Health {
        let verdict = self.0.get(pool).and_then(|pool| pool.get(backend));
        verdict.map_or(Health::Unknown, |verdict| verdict.health)
    }

    /// Whether a backend has ever been seen healthy.
    pub(super) fn lived(&self, pool: &str, backend: &str) -> bool {
        let verdict = self.0.get(pool).and_then(|pool| pool.get(backend));
        verdict.is_some_and(|verdict| verdict.lived)
    }

    /// For people.
    pub(super) fn view(&self, pool: &str, backend: &str, checked: bool) -> HealthView {
        let verdict = self.0.get(pool).and_then(|pool| pool.get(backend));
        match (checked, verdict) {
            (false, _) => HealthView::new("unchecked", "the pool has no health check", None),
            (true, None) => HealthView::new("unknown", "no check has ended yet", None),
            (true, Some(verdict)) => {
                let since = verdict.since.duration_since(UNIX_EPOCH).unwrap_or_default();
                let status = match verdict.health {
                    Health::Healthy => "healthy",
                    Health::Unhealthy => "unhealthy",
                    Health::Unknown => "unknown",
                };
                HealthView::new(status, &verdict.reason, Some(since.as_secs()))
            }
        }
    }
}
