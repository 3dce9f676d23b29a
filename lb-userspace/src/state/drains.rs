//! Backends that are being drained.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::handover::KnownDrain;

/// A backend by the names of its pool and its own.
pub(super) type Name = (String, String);

/// How far a drain has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainView {
    /// `draining`: it keeps its flows and gets no new ones. `drained`: it has none left, or
    /// the deadline has passed.
    pub status: String,
    /// Seconds until it is out with whatever is left; absent: it may take as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u64>,
}

/// Every drain that was not undone, by pool and backend.
#[derive(Default)]
pub(super) struct Drains(BTreeMap<String, BTreeMap<String, Drain>>);

#[derive(Clone, Copy)]
struct Drain {
    started: Instant,
    deadline: Option<Instant>,
    /// The janitor's passes when it started.
    passes: u64,
    stage: Stage,
}

/// Where a backend stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It keeps its flows.
    Draining,
    /// It is out: none were left.
    Empty,
    /// It is out: what was left is lost.
    Expired,
}

/// What is known of a backend's flows.
pub(super) struct Left {
    /// Live flows that the janitor saw last.
    pub(super) flows: u64,
    /// Its passes so far.
    pub(super) passes: u64,
    /// For how long there may be flows that have not spoken since the drain began.
    pub(super) unseen: Duration,
}

impl Drains {
    /// Begins to drain, or gives a drain another deadline. `passes`: the janitor's so far.
    pub(super) fn start(&mut self, name: Name, deadline: Option<Duration>, passes: u64) {
        let now = Instant::now();
        let of_pool = self.0.entry(name.0).or_default();
        let drain = of_pool.entry(name.1).or_insert(Drain {
            started: now,
            deadline: None,
            passes,
            stage: Stage::Draining,
        });
        drain.deadline = deadline.map(|deadline| now + deadline);
    }

    /// Undoes a drain; whether there was one.
    pub(super) fn stop(&mut self, (pool, backend): &Name) -> bool {
        let of_pool = self.0.get_mut(pool);
        let stopped = of_pool.is_some_and(|of_pool| of_pool.remove(backend).is_some());
        self.0.retain(|_, of_pool| !of_pool.is_empty());
        stopped
    }

    /// Where a backend stands, if it is drained.
    pub(super) fn stage(&self, pool: &str, backend: &str) -> Option<Stage> {
        Some(self.0.get(pool)?.get(backend)?.stage)
    }

    /// Forgets drains of a pool's backends that are no more.
    pub(super) fn keep(&mut self, pool: &str, exists: impl Fn(&str) -> bool) {
        if let Some(of_pool) = self.0.get_mut(pool) {
            of_pool.retain(|name, _| exists(name));
            if of_pool.is_empty() {
                self.0.remove(pool);
            }
        }
    }

    /// Moves drains on; pools of which one has come to its end.
    pub(super) fn advance(
        &mut self,
        left: impl Fn(&str, &str) -> Option<Left>,
    ) -> BTreeSet<String> {
        let now = Instant::now();
        let mut pools = BTreeSet::new();
        let drains = self.0.iter_mut();
        for (pool, (backend, drain)) in
            drains.flat_map(|(pool, drains)| drains.iter_mut().map(move |drain| (pool, drain)))
        {
            if drain.stage != Stage::Draining {
                continue;
            }
            // A whole pass that began after the last unseen flow must have spoken.
            let empty = left(pool, backend).is_some_and(|left| {
                left.flows == 0
                    && left.passes >= drain.passes + 2
                    && now >= drain.started + left.unseen
            });
            if empty {
                drain.stage = Stage::Empty;
            } else if drain.deadline.is_some_and(|deadline| deadline <= now) {
                drain.stage = Stage::Expired;
            }
            if drain.stage != Stage::Draining {
                tracing::info!(pool, backend, stage = ?drain.stage, "drained");
                pools.insert(pool.clone());
            }
        }
        pools
    }

    /// A backend's drain, for the agent that takes over.
    pub(super) fn known(&self, pool: &str, backend: &str) -> Option<KnownDrain> {
        let drain = self.0.get(pool)?.get(backend)?;
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        Some(KnownDrain {
            deadline: drain.deadline.map(left),
        })
    }

    /// For people.
    pub(super) fn view(&self, pool: &str, backend: &str) -> Option<DrainView> {
        let drain = self.0.get(pool)?.get(backend)?;
        let (status, deadline) = match drain.stage {
            Stage::Draining => ("draining", drain.deadline),
            Stage::Empty | Stage::Expired => ("drained", None),
        };
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now()).as_secs();
        Some(DrainView {
            status: status.to_owned(),
            deadline_seconds: deadline.map(left),
        })
    }
}
