//! What the owner knows of all nodes' votes, and its way to cast its own.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::drains::Name;
use crate::{
    health::{
        Health,
        vote::{Candidate, Tally},
    },
    shared::Cast,
};

pub(super) struct Agreement {
    casts: mpsc::UnboundedSender<Cast>,
    /// Whether what the majority says is acted on.
    in_force: bool,
    tallies: HashMap<Candidate, Tally>,
    /// Pool and backend of each that is checked here.
    names: HashMap<Candidate, Name>,
}

impl Agreement {
    pub(super) fn new(casts: mpsc::UnboundedSender<Cast>) -> Self {
        Self {
            casts,
            in_force: false,
            tallies: HashMap::new(),
            names: HashMap::new(),
        }
    }

    /// Whether what the majority says is acted on; else what this node's own checks say.
    pub(super) fn in_force(&self) -> bool {
        self.in_force
    }

    pub(super) fn set_in_force(&mut self, in_force: bool) {
        self.in_force = in_force;
    }

    pub(super) fn cast(&self, candidate: Candidate, healthy: Option<bool>) {
        // Who votes may have ended.
        let _ = self.casts.send((candidate, healthy));
    }

    /// Votes on a backend may be counted before this node knows of it.
    pub(super) fn set(&mut self, candidate: Candidate, tally: Tally) {
        match tally.total() {
            0 => self.tallies.remove(&candidate),
            _ => self.tallies.insert(candidate, tally),
        };
    }

    /// A backend that is checked from now on.
    pub(super) fn know(&mut self, candidate: Candidate, pool: &str, backend: &str) {
        let name = || (pool.to_owned(), backend.to_owned());
        self.names.entry(candidate).or_insert_with(name);
    }

    /// A backend that is not checked any more.
    pub(super) fn forget(&mut self, candidate: Candidate) {
        self.names.remove(&candidate);
        self.cast(candidate, None);
    }

    pub(super) fn name(&self, candidate: Candidate) -> Option<&Name> {
        self.names.get(&candidate)
    }

    pub(super) fn tally(&self, candidate: Candidate) -> Tally {
        self.tallies.get(&candidate).copied().unwrap_or_default()
    }

    /// What the majority says, if it is acted on and there is one: a backend that nobody votes on
    /// stays what it was taken for.
    pub(super) fn verdict(&self, candidate: Candidate) -> Option<Health> {
        let verdict = self.tally(candidate).verdict();
        (self.in_force && verdict != Health::Unknown).then_some(verdict)
    }
}
