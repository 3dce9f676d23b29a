//! What other nodes have told of services and backends that this one does not have yet: a change
//! reaches one node before the other.

use std::time::{Duration, Instant};

use crate::ha::sync::record::Record;

/// Records that may wait; more are lost until the next snapshot.
const ROOM: usize = 1 << 16;
/// How long one waits: by then a snapshot has told it anew, if its flow still lives.
const PATIENCE: Duration = Duration::from_secs(15);

/// Records that wait for a change of the configuration.
#[derive(Default)]
pub(super) struct Untaken {
    records: Vec<(Instant, Record)>,
    /// The number of changes when they were last tried.
    tried: u64,
}

impl Untaken {
    /// Keeps a record that could not be taken, the number of changes being `changes`.
    pub(super) fn keep(&mut self, record: Record, changes: u64) {
        if self.records.is_empty() {
            self.tried = changes;
        }
        if self.records.len() < ROOM {
            self.records.push((Instant::now() + PATIENCE, record));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Tries all with `take` if anything has changed since; those stay for which it says false.
    pub(super) fn retry(&mut self, changes: u64, mut take: impl FnMut(&Record) -> bool) {
        if std::mem::replace(&mut self.tried, changes) == changes {
            return;
        }
        let now = Instant::now();
        self.records
            .retain(|(until, record)| *until > now && !take(record));
    }
}
