//! When the holder of addresses tells its neighbours: several times, then at a slow rate.

use std::time::{Duration, Instant};

/// After it became active, or won over another.
const BURST: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];
/// Between two bursts at least, whatever others send.
const REST: Duration = Duration::from_secs(1);

/// A running series of announcements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeat {
    begun: Instant,
    next: Instant,
    step: usize,
    /// Another burst is to follow.
    again: bool,
}

impl Repeat {
    /// A burst that begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            next: now,
            step: 0,
            again: false,
        }
    }

    /// Begins another burst: now, or in a moment where one has just begun.
    pub(super) fn again(&mut self, now: Instant) {
        let rested = self.begun + REST;
        if now >= rested {
            *self = Self::new(now);
        } else {
            self.again = true;
            self.next = self.next.min(rested);
        }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Whether it is time; `slow` is the time between announcements after the burst.
    pub(super) fn due(&mut self, now: Instant, slow: Duration) -> bool {
        if now < self.next {
            return false;
        }
        if self.again && now >= self.begun + REST {
            *self = Self::new(now);
        }
        self.step += 1;
        self.next = match BURST.get(self.step) {
            Some(after) => now.max(self.begun + *after),
            None => now + slow,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_slowly() {
        let start = Instant::now();
        let slow = Duration::from_secs(60);
        let mut repeat = Repeat::new(start);
        let mut sent = Vec::new();
        while sent.len() < 7 {
            let now = repeat.next();
            assert!(repeat.due(now, slow));
            assert!(!repeat.due(now, slow));
            sent.push((now - start).as_millis());
        }
        assert_eq!(sent, [0, 100, 300, 1000, 3000, 63_000, 123_000]);
    }

    #[test]
    fn others_cannot_make_it_endless() {
        let start = Instant::now();
        let mut repeat = Repeat::new(start);
        assert!(repeat.due(start, REST));
        repeat.again(start + REST / 2);
        repeat.again(start + REST / 2);
        assert_eq!(repeat.next(), start + BURST[1]);
        let mut sent = 0;
        while repeat.next() < start + REST {
            assert!(repeat.due(repeat.next(), REST));
            sent += 1;
        }
        assert_eq!(sent, 2);
        // What was put off comes then, whole.
        assert!(repeat.due(start + REST, REST));
        assert_eq!(repeat.next(), start + REST + BURST[1]);
    }
}
