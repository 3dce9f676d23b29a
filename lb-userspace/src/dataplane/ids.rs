//! Indexes of the data path's arrays, given out and taken back.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Indexes from 1 up to a limit. One that is given back rests before it is given out again:
/// until then a flow may still remember it.
pub(crate) struct Ids {
    next: u32,
    limit: u32,
    resting: VecDeque<(Instant, u32)>,
}

impl Ids {
    /// Indexes from 1 to `limit`.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            next: 1,
            limit,
            resting: VecDeque::new(),
        }
    }

    /// An index that nothing remembers, and whether it was in use before; `None` where all are
    /// in use or resting.
    pub(crate) fn take(&mut self, now: Instant) -> Option<(u32, bool)> {
        if let Some(&(usable, id)) = self.resting.front()
            && usable <= now
        {
            self.resting.pop_front();
            return Some((id, true));
        }
        if self.next > self.limit {
            return None;
        }
        let id = self.next;
        self.next += 1;
        Some((id, false))
    }

    /// How many [`Ids::take`] can give at most now.
    pub(crate) fn available(&self, now: Instant) -> usize {
        // In the order of their rests.
        let rested = self.resting.partition_point(|(usable, _)| *usable <= now);
        (self.limit + 1 - self.next) as usize + rested
    }

    /// Takes an index back; it rests for `rest`.
    pub(crate) fn give_back(&mut self, id: u32, now: Instant, rest: Duration) {
        let usable = now + rest;
        // Nearly always the last: rests differ only between services.
        let place = self.resting.partition_point(|(other, _)| *other <= usable);
        self.resting.insert(place, (usable, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rest_before_they_come_again() {
        let now = Instant::now();
        let mut ids = Ids::new(2);
        assert_eq!(
            (ids.take(now), ids.take(now), ids.take(now)),
            (Some((1, false)), Some((2, false)), None)
        );
        ids.give_back(2, now, Duration::from_secs(60));
        ids.give_back(1, now, Duration::from_secs(30));
        assert_eq!((ids.available(now), ids.take(now)), (0, None));
        let later = now + Duration::from_secs(30);
        assert_eq!(
            (ids.available(later), ids.take(later), ids.take(later)),
            (1, Some((1, true)), None)
        );
    }
}
