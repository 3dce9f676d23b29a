//! Neighbours that the data path wants resolved now.

use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::neighbours::Key;

/// Requests kept at once: sources can be forged, and the kernel's neighbour table is small.
pub(super) const MOST: usize = 1024;

/// A set that many threads add to and one task empties.
#[derive(Default)]
pub(super) struct Requests {
    wanted: Mutex<HashSet<Key>>,
    arrived: Notify,
}

impl Requests {
    pub(super) fn add(&self, key: Key) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.len() < MOST && wanted.insert(key) {
            self.arrived.notify_one();
        }
    }

    /// Waits until there may be something to take.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    pub(super) fn take(&self) -> HashSet<Key> {
        mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
