//! Snapshots: one node asks for chunk after chunk, the other has them ready.

use std::time::{Duration, Instant};

/// Chunks that are sent for one question.
const BURST: u32 = 64;
/// After so long without an answer the question is asked again.
const PATIENCE: Duration = Duration::from_millis(200);
/// A snapshot that nobody has asked for in so long is forgotten.
const KEPT: Duration = Duration::from_secs(10);

/// The side that asks.
#[derive(Debug, Default)]
pub(super) struct Pull {
    /// Whether there is something to ask for.
    running: bool,
    /// A new number for each.
    snapshot: u32,
    /// The first chunk that is missing.
    next: u32,
    chunks: u32,
    asked: Option<Instant>,
}

impl Pull {
    /// Begins anew.
    pub(super) fn begin(&mut self) {
        *self = Self {
            running: true,
            snapshot: self.snapshot.wrapping_add(1),
            ..Self::default()
        };
    }

    /// Snapshot and chunk to ask for now, if it is time to.
    pub(super) fn due(&mut self, now: Instant) -> Option<(u32, u32)> {
        let patient = self
            .asked
            .is_some_and(|asked| now.duration_since(asked) < PATIENCE);
        if !self.running || patient {
            return None;
        }
        self.asked = Some(now);
        Some((self.snapshot, self.next))
    }

    /// A chunk came; whether it is the next.
    pub(super) fn got(&mut self, now: Instant, snapshot: u32, chunk: u32, chunks: u32) -> bool {
        if !self.running || snapshot != self.snapshot {
            return false;
        }
        if chunk == 0 {
            // Perhaps made anew, after the other side had given up on us.
            self.next = 0;
        }
        if chunk != self.next {
            return false;
        }
        self.next += 1;
        self.chunks = chunks;
        self.running = self.next < chunks;
        // The end of a burst: the next is due at once.
        self.asked = (!self.next.is_multiple_of(BURST)).then_some(now);
        true
    }

    /// Whether everything has come.
    pub(super) fn is_done(&self) -> bool {
        !self.running && self.chunks != 0
    }
}

/// The side that is asked.
#[derive(Default)]
pub(super) struct Serving {
    snapshot: u32,
    used: Option<Instant>,
    chunks: Vec<Vec<u8>>,
}

impl Serving {
    /// Snapshot `snapshot` is to be made.
    pub(super) fn wanted(&mut self, snapshot: u32) {
        *self = Self {
            snapshot,
            ..Self::default()
        };
    }

    /// It is made.
    pub(super) fn begin(&mut self, now: Instant, mut chunks: Vec<Vec<u8>>) {
        if chunks.is_empty() {
            // That there is nothing must be said too.
            chunks.push(Vec::new());
        }
        self.used = Some(now);
        self.chunks = chunks;
    }

    /// Whether this snapshot is here.
    pub(super) fn has(&self, snapshot: u32) -> bool {
        snapshot == self.snapshot && !self.chunks.is_empty()
    }

    /// Snapshot, chunk and number of chunks for the next burst.
    pub(super) fn burst(
        &mut self,
        now: Instant,
        from: u32,
    ) -> impl Iterator<Item = (u32, u32, u32)> + use<> {
        self.used = Some(now);
        let (snapshot, chunks) = (self.snapshot, self.chunks.len() as u32);
        // Bursts end where the other side expects it, also when it asks again from the middle.
        let end = (from / BURST)
            .saturating_add(1)
            .saturating_mul(BURST)
            .min(chunks);
        (from..end).map(move |chunk| (snapshot, chunk, chunks))
    }

    /// The records of a chunk; empty where there is none.
    pub(super) fn chunk(&self, chunk: u32) -> &[u8] {
        self.chunks.get(chunk as usize).map_or(&[], Vec::as_slice)
    }

    /// Gives the memory back when nobody asks any more.
    pub(super) fn forget(&mut self, now: Instant) {
        if self
            .used
            .is_some_and(|used| now.duration_since(used) >= KEPT)
        {
            self.used = None;
            self.chunks = Vec::new();
        }
    }
}
