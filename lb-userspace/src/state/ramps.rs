//! Slow start: backends that get to their full share little by little.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::drains::Name;

/// Steps from nothing to the full share.
pub(super) const STEPS: u32 = 10;

/// Backends on their way to their full share.
#[derive(Default)]
pub(super) struct Ramps(BTreeMap<Name, (Instant, Duration)>);

impl Ramps {
    /// A backend begins to take flows, and is to take its full share in `time`.
    pub(super) fn start(&mut self, name: Name, time: Duration) {
        self.0.insert(name, (Instant::now(), time));
    }

    /// The step that a backend is at, 1 to [`STEPS`].
    pub(super) fn step(&self, pool: &str, backend: &str) -> u32 {
        let name = (pool.to_owned(), backend.to_owned());
        self.0
            .get(&name)
            .map_or(STEPS, |&(start, time)| at(start.elapsed(), time))
    }

    /// Forgets those that have arrived; whether there were any on their way.
    pub(super) fn advance(&mut self) -> bool {
        let any = !self.0.is_empty();
        self.0.retain(|_, (start, time)| start.elapsed() < *time);
        any
    }

    /// Forgets backends that do not take flows.
    pub(super) fn keep(&mut self, takes_flows: impl Fn(&Name) -> bool) {
        self.0.retain(|name, _| takes_flows(name));
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
