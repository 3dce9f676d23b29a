//! Indexes of the data path's arrays, given out and taken back.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

/// Indexes from 1 up to a limit. One that is given back rests before it is given out again:
/// until then a flow may still remember it.
pub(crate) struct Ids {
    next: u32,
    limit: u32,
    resting: VecDeque<(Instant, u32)>,
    /// Of an earlier agent, and not taken yet by what had them then.
    inherited: BTreeSet<u32>,
}

impl Ids {
    /// Indexes from 1 to `limit`.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            next: 1,
            limit,
            resting: VecDeque::new(),
            inherited: BTreeSet::new(),
        }
    }

    /// Goes on where an earlier agent has ended, which had given out these. None must have been
    /// taken yet, and none be above the limit.
    pub(crate) fn inherit(&mut self, ids: impl IntoIterator<Item = u32>) {
        self.inherited.extend(ids);
        self.next = self.inherited.last().map_or(1, |last| last + 1);
        let now = Instant::now();
        let free = (1..self.next).filter(|id| !self.inherited.contains(id));
        self.resting = free.map(|id| (now, id)).collect();
    }

    /// Those that nobody has taken yet.
    pub(crate) fn inherited(&self) -> &BTreeSet<u32> {
        &self.inherited
    }

    /// Takes an index that an earlier agent had given out; whether it was not taken yet.
    pub(crate) fn take_inherited(&mut self, id: u32) -> bool {
        self.inherited.remove(&id)
    }

    /// Has what nobody has taken of an earlier agent's rest.
    pub(crate) fn leave_inherited(&mut self, now: Instant, rest: Duration) {
        for id in std::mem::take(&mut self.inherited) {
            self.give_back(id, now, rest);
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
            // Whose it was has gone, and with no room left its flows go too.
            return Some((self.inherited.pop_first()?, true));
        }
        let id = self.next;
        self.next += 1;
        Some((id, false))
    }

    /// How many [`Ids::take`] can give at most now.
    pub(crate) fn available(&self, now: Instant) -> usize {
        // In the order of their rests.
        let rested = self.resting.partition_point(|(usable, _)| *usable <= now);
        (self.limit + 1 - self.next) as usize + rested + self.inherited.len()
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

    #[test]
    fn an_earlier_agents_ids_go_to_whom_they_belonged() {
        let now = Instant::now();
        let mut ids = Ids::new(5);
        ids.inherit([1, 3, 4]);
        assert_eq!(ids.available(Instant::now()), 5);
        assert!(ids.take_inherited(3));
        assert!(!ids.take_inherited(3) && !ids.take_inherited(2));
        let later = Instant::now();
        assert_eq!(ids.take(later), Some((2, true)), "it was free");
        assert_eq!(ids.take(later), Some((5, false)));
        ids.leave_inherited(now, Duration::from_secs(60));
        assert_eq!(ids.take(later), None, "flows may remember the others");
        let rested = later + Duration::from_secs(60);
        assert_eq!(ids.take(rested), Some((1, true)));
    }
}
