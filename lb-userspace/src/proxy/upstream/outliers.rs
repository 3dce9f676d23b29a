//! Leaving out backends that answer badly, for a while.

use super::{ConnectError, Upstream};
use crate::proxy::{backend::clock, local::LocalPool, request::Failure};

/// Answers between two comparisons of latencies.
const LOOK: u32 = 64;

/// Backends of which there is a median.
const FEWEST: usize = 3;

impl Upstream {
    /// It has answered.
    pub(crate) fn judge(&self, pool: &LocalPool, status: u16) {
        if status < 500 {
            self.backend.did_well();
            self.compare(pool);
            return;
        }
        let errors = self.backend.erred();
        let rule = pool.plan.http.outliers.as_ref();
        let most = rule.and_then(|rule| rule.errors);
        if most.is_some_and(|most| errors >= most) {
            self.eject(pool, "errors in a row");
        }
    }

    /// It has not.
    pub(crate) fn failed(&self, pool: &LocalPool, failure: &Failure) {
        match failure {
            // Not its fault.
            Failure::Client(_) | Failure::Breaker | Failure::Unsent | Failure::Unprocessed => {
                return;
            }
            Failure::Connect(error) => {
                self.stats().connect_failures.add(1);
                tracing::debug!(backend = %self.backend.address, "no connection: {error}");
                if matches!(error, ConnectError::Breaker) {
                    return;
                }
            }
            Failure::Timeout | Failure::Late => self.stats().timeouts.add(1),
            // It may have closed an idle connection just then.
            Failure::Closed => return self.stats().failures.add(1),
            Failure::Reset | Failure::Nonsense | Failure::Status(_) => {
                self.stats().failures.add(1);
            }
        }
        let failures = self.backend.failed();
        let rule = pool.plan.http.outliers.as_ref();
        let most = rule.and_then(|rule| rule.failures);
        if most.is_some_and(|most| failures >= most) {
            self.eject(pool, "failures in a row");
        }
    }

    /// Whether it is much slower than the others; looked at now and then.
    fn compare(&self, pool: &LocalPool) {
        let rule = pool.plan.http.outliers.as_ref();
        let Some(factor) = rule.and_then(|rule| rule.latency_factor) else {
            return;
        };
        let count = self.judged.get().wrapping_add(1);
        self.judged.set(count);
        if !count.is_multiple_of(LOOK) {
            return;
        }
        let members = pool.plan.members.iter();
        let mut all: Vec<u32> = members
            .map(|member| member.backend.latency())
            .filter(|latency| *latency > 0)
            .collect();
        all.sort_unstable();
        let own = self.backend.latency();
        let median = all.get(all.len() / 2).copied().unwrap_or(u32::MAX);
        if all.len() >= FEWEST && own > median.saturating_mul(factor) {
            // It begins anew when it comes back.
            self.backend.forget_latency();
            self.eject(pool, "far slower than the others");
        }
    }

    fn eject(&self, pool: &LocalPool, why: &str) {
        let Some(rule) = &pool.plan.http.outliers else {
            return;
        };
        let now = clock();
        let members = || {
            pool.plan
                .members
                .iter()
                .filter(|member| member.takes_requests())
        };
        let weight = |rests: bool| -> u64 {
            let those = members().filter(|member| !rests || member.backend.rests(now));
            those.map(|member| u64::from(member.weight)).sum()
        };
        let own = members().find(|member| std::ptr::eq(&*member.backend, &*self.backend));
        let own = own.map_or(0, |member| u64::from(member.weight));
        let (all, resting) = (weight(false), weight(true) + own);
        // The floor, and always somebody.
        let left = all.saturating_sub(resting);
        if left == 0 || left * 100 < all * u64::from(pool.plan.floor_percent) {
            return;
        }
        if self.backend.eject(rule.rest, rule.max_rest) {
            self.stats().ejections.add(1);
            let backend = &self.backend;
            tracing::warn!(
                pool = backend.pool,
                backend = backend.name,
                "left out for a while: {why}"
            );
        }
    }
}
