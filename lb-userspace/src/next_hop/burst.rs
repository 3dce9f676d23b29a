//! Gathers notifications, so that many of them lead to one pass.

use std::{future::pending, time::Duration};

use tokio::time::{Instant, sleep_until};

/// Quiet to wait for before a burst of notifications is acted upon.
const QUIET: Duration = Duration::from_millis(20);
/// Longest time that a burst, or the length of the last pass, may defer that.
const LONGEST_BURST: Duration = Duration::from_millis(200);

/// When the next pass is to be made.
#[derive(Default)]
pub(super) struct Burst {
    /// Start of the burst and end of the quiet after its last event.
    pending: Option<(Instant, Instant)>,
    last_pass: Duration,
}

impl Burst {
    /// None yet, after a pass that took so long.
    pub(super) fn after_pass(last_pass: Duration) -> Self {
        Self {
            pending: None,
            last_pass,
        }
    }

    pub(super) fn event(&mut self, now: Instant) {
        let start = self.pending.map_or(now, |(start, _)| start);
        let quiet = self.last_pass.clamp(QUIET, LONGEST_BURST);
        self.pending = Some((start, (now + quiet).min(start + LONGEST_BURST)));
    }

    pub(super) fn at_once(&mut self, now: Instant) {
        self.pending = Some((now, now));
    }

    pub(super) async fn over(&self) {
        match self.pending {
            Some((_, end)) => sleep_until(end).await,
            None => pending().await,
        }
    }
}
