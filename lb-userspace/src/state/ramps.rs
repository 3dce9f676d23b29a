//! Slow start: backends that get to their full share little by little.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    config::Pool,
    desired::{DesiredBackend, DesiredPool},
};

/// Steps from nothing to the full share.
pub(super) const STEPS: u32 = 10;

/// Backends on their way to their full share, by pool and name.
#[derive(Default)]
pub(super) struct Ramps(BTreeMap<String, BTreeMap<String, (Instant, Duration)>>);

impl Ramps {
    /// A backend begins to take flows, and is to take its full share in `time`.
    fn start(&mut self, pool: &str, backend: &str, time: Duration) {
        let of_pool = self.0.entry(pool.to_owned()).or_default();
        of_pool.insert(backend.to_owned(), (Instant::now(), time));
    }

    /// A pool's backends that join others which work already begin their way, where the pool
    /// says so, and those that take no flows end theirs; whether any has begun.
    pub(super) fn begin(
        &mut self,
        name: &str,
        pool: &Pool,
        old: &DesiredPool,
        new: &DesiredPool,
    ) -> bool {
        let worked = |backend: &str| old.get(backend).is_some_and(DesiredBackend::takes_flows);
        let mut begun = false;
        if let Some(time) = pool.slow_start
            && old.values().any(DesiredBackend::takes_flows)
        {
            let joining = new
                .iter()
                .filter(|(name, new)| new.takes_flows() && !worked(name));
            for (backend, _) in joining {
                self.start(name, backend, time);
                begun = true;
            }
        }
        self.keep(name, |backend| {
            new.get(backend).is_some_and(DesiredBackend::takes_flows)
        });
        begun
    }

    /// The step that a backend is at, 1 to [`STEPS`].
    pub(super) fn step(&self, pool: &str, backend: &str) -> u32 {
        let ramp = self.0.get(pool).and_then(|pool| pool.get(backend));
        ramp.map_or(STEPS, |&(start, time)| at(start.elapsed(), time))
    }

    /// Forgets those that have arrived; pools where there were any on their way.
    pub(super) fn advance(&mut self) -> BTreeSet<String> {
        let pools = self.0.keys().cloned().collect();
        self.0.retain(|_, ramps| {
            ramps.retain(|_, (start, time)| start.elapsed() < *time);
            !ramps.is_empty()
        });
        pools
    }

    /// Forgets a pool's backends that do not take flows.
    pub(super) fn keep(&mut self, pool: &str, takes_flows: impl Fn(&str) -> bool) {
        if let Some(of_pool) = self.0.get_mut(pool) {
            of_pool.retain(|name, _| takes_flows(name));
            if of_pool.is_empty() {
                self.0.remove(pool);
            }
        }
    }
}

fn at(elapsed: Duration, time: Duration) -> u32 {
    let step = elapsed.as_millis() * u128::from(STEPS) / time.as_millis().max(1);
    u32::try_from(step + 1).unwrap_or(STEPS).clamp(1, STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ramps_in_steps() {
        let time = Duration::from_secs(20);
        let steps = [0, 1, 2, 10, 19, 20, 90].map(|second| at(Duration::from_secs(second), time));
        assert_eq!(steps, [1, 1, 2, 6, 10, 10, 10]);
    }
}
