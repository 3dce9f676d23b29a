//! What the health checks said last, by pool and backend.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use super::view::HealthView;
use crate::{
    config::Config,
    health::{Change, Health},
};

/// The last verdict on each backend that has one.
#[derive(Default)]
pub(super) struct Verdicts(BTreeMap<String, BTreeMap<String, Verdict>>);

struct Verdict {
    health: Health,
    reason: String,
    since: SystemTime,
}

impl Verdicts {
    /// Notes a verdict.
    pub(super) fn note(&mut self, change: Change) {
        let pool = self.0.entry(change.pool).or_default();
        pool.insert(
            change.backend,
            Verdict {
                health: change.health,
                reason: change.reason,
                since: SystemTime::now(),
            },
        );
    }

    /// Forgets verdicts on what is not checked any more, or is another server now.
    pub(super) fn keep(&mut self, old: &Config, new: &Config) {
        let same = |pool: &str, backend: &str| {
            let address =
                |config: &Config| Some(config.pools.get(pool)?.backends.get(backend)?.address);
            let checked = (new.pools.get(pool)).is_some_and(|pool| pool.health_check.is_some());
            checked && address(old) == address(new)
        };
        for (pool, verdicts) in &mut self.0 {
            verdicts.retain(|backend, _| same(pool, backend));
        }
        self.0.retain(|_, verdicts| !verdicts.is_empty());
    }

    /// The last verdict on a backend.
    pub(super) fn health(&self, pool: &str, backend: &str) -> Health {
        let verdict = self.0.get(pool).and_then(|pool| pool.get(backend));
        verdict.map_or(Health::Unknown, |verdict| verdict.health)
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
