//! Holding threads up.

use std::sync::{Condvar, Mutex, PoisonError};

/// A gate that others close and open.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed: Mutex<bool>,
    moved: Condvar,
}

impl Gate {
    pub(crate) fn set_closed(&self, closed: bool) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = closed;
        self.moved.notify_all();
    }

    /// Blocks the calling thread while the gate is closed.
    pub(crate) fn pass(&self) {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.moved.wait_while(closed, |closed| *closed));
    }
}
