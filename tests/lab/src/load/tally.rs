//! Counting requests.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Result, ensure};

/// How many reasons of failures are kept.
const REASONS: usize = 10;

/// What became of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// Those that were answered or failed.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// How often one was made again because it had failed.
    pub retried: u64,
    /// Why, of the first ten.
    pub failures: Vec<String>,
    /// How many each backend answered, by its name.
    pub by_backend: BTreeMap<String, u64>,
}

/// Results in the making.
pub(super) struct Tally {
    finite: bool,
    state: Mutex<State>,
}

struct State {
    /// Requests that may still be begun.
    left: u64,
    results: Results,
}

impl Tally {
    pub(super) fn new(requests: Option<u64>) -> Self {
        Self {
            finite: requests.is_some(),
            state: Mutex::new(State {
                left: requests.unwrap_or(u64::MAX),
                results: Results::default(),
            }),
        }
    }

    /// Whether one more request is to be made, and its number.
    pub(super) fn begin(&self) -> Option<u64> {
        let mut state = self.state();
        state.left = state.left.checked_sub(1)?;
        Some(state.left)
    }

    pub(super) fn answered(&self, backend: &str) {
        let results = &mut self.state().results;
        results.requests += 1;
        match results.by_backend.get_mut(backend) {
            Some(count) => *count += 1,
            None => {
                results.by_backend.insert(backend.to_owned(), 1);
            }
        }
    }

    pub(super) fn retried(&self) {
        self.state().results.retried += 1;
    }

    pub(super) fn failed(&self, reason: impl FnOnce() -> String) {
        let results = &mut self.state().results;
        results.requests += 1;
        results.failed += 1;
        if results.failures.len() < REASONS {
            results.failures.push(reason());
        }
    }

    pub(super) fn stop(&self) {
        self.state().left = 0;
    }

    pub(super) fn ensure_finite(&self) -> Result<()> {
        ensure!(self.finite, "endless load does not finish: stop it");
        Ok(())
    }

    pub(super) fn results(&self) -> Results {
        self.state().results.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
