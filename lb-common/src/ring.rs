//! A service's ring as its owner, the agent, changes it: the other half of
//! [`crate::selection`].
//!
//! | what happens | `base` | `current` | `track` |
//! |---|---|---|---|
//! | nothing has for long | the owner | the same | no |
//! | a change moves the slot | stays: who is not remembered is its | the new owner | yes |
//! | another change before it settles | stays | the newest owner | yes |
//! | [`Ring::find`]: another node tells of a flow that has another backend | stays | stays | yes |
//! | [`Ring::settle`]: tracked for longer than flows may idle, so all that live are remembered | `current` | | yes |
//! | [`Ring::rehash`]: the flows' hash changes | stays | | yes, until all that live are remembered |
//! | [`Ring::release`]: no remembered flow has another backend any more | `current` | | no |

use alloc::{vec, vec::Vec};

use crate::{selection::age, slot::Slot};

/// Which flows of a service are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remember {
    /// None: every packet goes to its slot's present owner (`hash` tracking of UDP).
    Never,
    /// Those of slots that a change has moved.
    Changes,
    /// All: the backend does not follow from the slot.
    Always,
}

/// The slots of a service, and since when each is tracked. Every method that changes slots
/// gives each changed one to `write`, with its index, once.
#[derive(Clone, Debug)]
pub struct Ring {
    slots: Vec<Slot>,
    /// Tick at which tracking began; means nothing for a slot that is not tracked. Empty where
    /// none is.
    since: Vec<u32>,
    tracked: usize,
    remember: Remember,
    /// Tick at which the flows' hash changed, while some may still belong to the base of the
    /// slot that the old one finds.
    rehashed: Option<u32>,
}

/// Packets that had read the slot before a change, and clocks a tick apart.
const MARGIN: u32 = 2;

impl Ring {
    /// A ring that begins with these owners (0: none); their number is a power of two.
    pub fn new(owners: &[u32], remember: Remember, now: u32) -> Self {
        let track = remember == Remember::Always;
        let (since, tracked) = match track {
            true => (vec![now; owners.len()], owners.len()),
            false => (Vec::new(), 0),
        };
        Self {
            slots: owners.iter().map(|&id| Slot::new(id, id, track)).collect(),
            since,
            tracked,
            remember,
            rehashed: None,
        }
    }

    /// A ring that goes on where another has ended of which only the slots are known. Since when
    /// they were tracked is not: they are from `now` on.
    pub fn resumed(slots: &[Slot], remember: Remember, now: u32) -> Self {
        let resume = |slot: &Slot| match remember {
            Remember::Never => Slot::stable(slot.current()),
            Remember::Changes => *slot,
            Remember::Always => Slot::new(slot.base(), slot.current(), true),
        };
        let slots: Vec<Slot> = slots.iter().map(resume).collect();
        let tracked = slots.iter().filter(|slot| slot.track()).count();
        Self {
            since: match tracked {
                0 => Vec::new(),
                _ => vec![now; slots.len()],
            },
            slots,
            tracked,
            remember,
            rehashed: None,
        }
    }

    /// The slots as they are.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Number of slots whose flows are remembered.
    pub fn tracked(&self) -> usize {
        self.tracked
    }

    /// Which flows are remembered.
    pub fn remember(&self) -> Remember {
        self.remember
    }

    /// The same slots in a ring of `owners.len()`, a multiple of this one's length: every flow
    /// finds the slot that it had, now split from others, and `owners` as the newest change.
    pub fn grown(&self, owners: &[u32], now: u32) -> Self {
        let times = owners.len() / self.slots.len().max(1);
        let mut grown = Self {
            slots: self.slots.repeat(times),
            since: self.since.repeat(times),
            tracked: self.tracked * times,
            remember: self.remember,
            rehashed: self.rehashed,
        };
        grown.change(owners, now, |_, _| {});
        grown
    }

    /// The first slots, as a ring of its own: what a table of so many, repeated, made of this
    /// ring. `None` where flows of slots that would become one may differ.
    pub fn shrunk(&self, slots: usize) -> Option<Self> {
        let is_whole = slots.is_power_of_two() && slots < self.slots.len();
        let is_stable = is_whole && self.tracked == 0;
        let first = self.slots.get(..slots).filter(|_| is_stable)?;
        let repeated = self.slots.chunks(slots).all(|chunk| chunk == first);
        repeated.then(|| Self {
            slots: first.to_vec(),
            since: Vec::new(),
            tracked: 0,
            remember: self.remember,
            rehashed: None,
        })
    }

    /// Puts a slot, which is tracked from `now` on if it is and was not before.
    fn put(&mut self, index: usize, new: Slot, now: u32) {
        match (self.slots[index].track(), new.track()) {
            (false, true) => {
                if self.since.is_empty() {
                    self.since = vec![0; self.slots.len()];
                }
                self.since[index] = now;
                self.tracked += 1;
            }
            (true, false) => {
                self.tracked -= 1;
                if self.tracked == 0 {
                    self.since = Vec::new();
                }
            }
            _ => {}
        }
        self.slots[index] = new;
    }

    /// Whether flows that are not remembered may still belong where an old hash puts them.
    pub fn is_rehashed(&self) -> bool {
        self.rehashed.is_some()
    }

    /// The flows' hash is about to change. Flows of every slot are remembered, until all that
    /// live must have spoken: till then the others are found by the old hash.
    pub fn rehash(&mut self, now: u32, mut write: impl FnMut(usize, Slot)) {
        if self.remember == Remember::Never {
            return;
        }
        self.rehashed = Some(now);
        for index in 0..self.slots.len() {
            let slot = self.slots[index];
            if !slot.track() {
                let tracked = Slot::new(slot.base(), slot.current(), true);
                self.put(index, tracked, now);
                write(index, tracked);
            }
        }
    }

    /// Gives the slots new owners. A table of fewer slots, a power of two of them too, is
    /// repeated: every flow gets the owner that it would have in a ring of that size.
    pub fn change(&mut self, owners: &[u32], now: u32, write: impl FnMut(usize, Slot)) {
        let moves = self.moves(owners);
        self.make(&moves, now, write);
    }

    /// The slots that [`Ring::change`] would give another owner: index and owner. They are the
    /// same for every ring of as many slots with the same owners.
    pub fn moves(&self, owners: &[u32]) -> Vec<(u32, u32)> {
        // So many at once: few differ, and a word of their bits is found without a branch a slot.
        const AT_ONCE: usize = u32::BITS as usize;
        let repeats = self.slots.chunks(owners.len().max(1));
        let pieces = repeats.flat_map(|slots| slots.chunks(AT_ONCE).zip(owners.chunks(AT_ONCE)));
        let mut moves = Vec::new();
        let mut first = 0;
        for (slots, owners) in pieces {
            let both = slots.iter().zip(owners);
            let differ = both.map(|(slot, owner)| u32::from(slot.current() != *owner));
            let mut differ = (0..).zip(differ).fold(0, |all, (at, bit)| all | bit << at);
            while differ != 0 {
                let at = differ.trailing_zeros();
                moves.push((first + at, owners[at as usize]));
                differ &= differ - 1;
            }
            first += slots.len() as u32;
        }
        moves
    }

    /// Gives slots, each once, other owners than they have: those of [`Ring::moves`].
    pub fn make(&mut self, moves: &[(u32, u32)], now: u32, mut write: impl FnMut(usize, Slot)) {
        for &(index, owner) in moves {
            let index = index as usize;
            let old = self.slots[index];
            // Nobody had it, so no flow can be of it.
            let free = !old.track() && old.current() == 0;
            let new = match self.remember {
                Remember::Never => Slot::stable(owner),
                Remember::Changes if free => Slot::stable(owner),
                _ => Slot::new(old.base(), owner, true),
            };
            self.put(index, new, now);
            write(index, new);
        }
    }

    /// Takes the dead from the bases: who is not remembered goes to `current` from now on,
    /// instead of being told that its connection is lost.
    pub fn bury(&mut self, dead: impl Fn(u32) -> bool, mut write: impl FnMut(usize, Slot)) {
        if self.tracked == 0 {
            return;
        }
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.base() != slot.current() && dead(slot.base()) {
                *slot = Slot::new(slot.current(), slot.current(), slot.track());
                write(index, *slot);
            }
        }
    }

    /// Makes `current` the base of slots that are tracked since `start` or later: what they were
    /// before is nobody's table but this node's.
    pub fn begin(&mut self, start: u32, now: u32, mut write: impl FnMut(usize, Slot)) {
        for (index, (slot, &since)) in self.slots.iter_mut().zip(&self.since).enumerate() {
            let is_later = age(now, since) <= age(now, start);
            if slot.track() && slot.base() != slot.current() && is_later {
                *slot = Slot::new(slot.current(), slot.current(), true);
                write(index, *slot);
            }
        }
    }

    /// Changes which flows are remembered from now on.
    pub fn set_remember(
        &mut self,
        remember: Remember,
        now: u32,
        mut write: impl FnMut(usize, Slot),
    ) {
        if self.remember == remember {
            return;
        }
        self.remember = remember;
        if remember == Remember::Never {
            self.rehashed = None;
        }
        for index in 0..self.slots.len() {
            let old = self.slots[index];
            let new = match remember {
                Remember::Never => Slot::stable(old.current()),
                // The janitor releases what need not be.
                Remember::Changes => continue,
                Remember::Always => Slot::new(old.base(), old.current(), true),
            };
            if old != new {
                self.put(index, new, now);
                write(index, new);
            }
        }
    }

    /// Tracks a slot as another node has since `since`, where this one does not know of any
    /// change: flows that nobody remembers belong to `base`.
    pub fn adopt(
        &mut self,
        index: usize,
        base: u32,
        since: u32,
        mut write: impl FnMut(usize, Slot),
    ) {
        let Some(&old) = self.slots.get(index) else {
            return;
        };
        if self.remember == Remember::Never || old.base() != old.current() {
            return;
        }
        let new = Slot::new(base, old.current(), true);
        if new != old {
            self.put(index, new, since);
            self.since[index] = since;
            write(index, new);
        }
    }

    /// Has a remembered flow with `backend` be found, where the slot is stable and another's: a
    /// node that has made a change earlier, or is of another opinion, may have told of it.
    pub fn find(
        &mut self,
        index: usize,
        backend: u32,
        now: u32,
        mut write: impl FnMut(usize, Slot),
    ) {
        let Some(&old) = self.slots.get(index) else {
            return;
        };
        if self.remember != Remember::Changes || old.track() || old.current() == backend {
            return;
        }
        let new = Slot::new(old.base(), old.current(), true);
        self.put(index, new, now);
        write(index, new);
    }

    /// Slots that are tracked and not as [`Ring::new`] would make them: index, slot, and since
    /// when it is tracked.
    pub fn moved(&self) -> impl Iterator<Item = (usize, Slot, u32)> {
        let slots = self.slots.iter().copied().zip(self.since.iter().copied());
        let always = self.remember == Remember::Always;
        slots
            .enumerate()
            .map(|(index, (slot, since))| (index, slot, since))
            .filter(move |(_, slot, _)| slot.track() && !(always && slot.base() == slot.current()))
    }

    /// Makes `current` the base of slots that have been tracked for longer than flows may be
    /// idle: every live flow of theirs has spoken since, and is remembered.
    pub fn settle(&mut self, idle_ticks: u32, now: u32, mut write: impl FnMut(usize, Slot)) {
        let long_ago = |since| age(now, since) > idle_ticks.saturating_add(MARGIN);
        self.rehashed = self.rehashed.filter(|&since| !long_ago(since));
        for (index, (slot, &since)) in self.slots.iter_mut().zip(&self.since).enumerate() {
            if slot.track() && slot.base() != slot.current() && long_ago(since) {
                *slot = Slot::new(slot.current(), slot.current(), true);
                write(index, *slot);
            }
        }
    }

    /// Stops tracking the settled slots of which `elsewhere` knows no live remembered flow
    /// with another backend than `current`. It must have looked after the slot's last change.
    pub fn release(
        &mut self,
        elsewhere: impl Fn(usize) -> bool,
        mut write: impl FnMut(usize, Slot),
    ) {
        if self.remember == Remember::Always || self.tracked == 0 || self.is_rehashed() {
            return;
        }
        for index in 0..self.slots.len() {
            let slot = self.slots[index];
            if slot.track() && slot.base() == slot.current() && !elsewhere(index) {
                let stable = Slot::stable(slot.current());
                self.put(index, stable, 0);
                write(index, stable);
            }
        }
    }
}
