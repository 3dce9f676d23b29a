//! A service's ring as its owner, the agent, changes it: the other half of
//! [`crate::selection`].
//!
//! | what happens | `base` | `current` | `track` |
//! |---|---|---|---|
//! | nothing has for long | the owner | the same | no |
//! | a change moves the slot | stays: who is not remembered is its | the new owner | yes |
//! | another change before it settles | stays | the newest owner | yes |
//! | [`Ring::settle`]: tracked for longer than flows may idle, so all that live are remembered | `current` | | yes |
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
    /// Tick at which tracking began; means nothing for a slot that is not tracked.
    since: Vec<u32>,
    remember: Remember,
}

impl Ring {
    /// A ring that begins with these owners (0: none); their number is a power of two.
    pub fn new(owners: &[u32], remember: Remember, now: u32) -> Self {
        let track = remember == Remember::Always;
        Self {
            slots: owners.iter().map(|&id| Slot::new(id, id, track)).collect(),
            since: vec![now; owners.len()],
            remember,
        }
    }

    /// The slots as they are.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
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
            remember: self.remember,
        };
        grown.change(owners, now, |_, _| {});
        grown
    }

    /// Gives the slots new owners.
    pub fn change(&mut self, owners: &[u32], now: u32, mut write: impl FnMut(usize, Slot)) {
        for (index, &owner) in owners.iter().enumerate().take(self.slots.len()) {
            let old = self.slots[index];
            if old.current() == owner {
                continue;
            }
            // Nobody had it, so no flow can be of it.
            let free = !old.track() && old.current() == 0;
            let new = match self.remember {
                Remember::Never => Slot::stable(owner),
                Remember::Changes if free => Slot::stable(owner),
                _ => Slot::new(old.base(), owner, true),
            };
            if new.track() && !old.track() {
                self.since[index] = now;
            }
            self.slots[index] = new;
            write(index, new);
        }
    }

    /// Takes the dead from the bases: who is not remembered goes to `current` from now on,
    /// instead of being told that its connection is lost.
    pub fn bury(&mut self, dead: impl Fn(u32) -> bool, mut write: impl FnMut(usize, Slot)) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.base() != slot.current() && dead(slot.base()) {
                *slot = Slot::new(slot.current(), slot.current(), slot.track());
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
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let new = match remember {
                Remember::Never => Slot::stable(slot.current()),
                // The janitor releases what need not be.
                Remember::Changes => continue,
                Remember::Always => Slot::new(slot.base(), slot.current(), true),
            };
            if new.track() && !slot.track() {
                self.since[index] = now;
            }
            if *slot != new {
                *slot = new;
                write(index, new);
            }
        }
    }

    /// Makes `current` the base of slots that have been tracked for longer than flows may be
    /// idle: every live flow of theirs has spoken since, and is remembered.
    pub fn settle(&mut self, idle_ticks: u32, now: u32, mut write: impl FnMut(usize, Slot)) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            // Packets that had read the slot before the change, and clocks a tick apart.
            const MARGIN: u32 = 2;
            let tracked_for = age(now, self.since[index]);
            if slot.track()
                && slot.base() != slot.current()
                && tracked_for > idle_ticks.saturating_add(MARGIN)
            {
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
        if self.remember == Remember::Always {
            return;
        }
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.track() && slot.base() == slot.current() && !elsewhere(index) {
                *slot = Slot::stable(slot.current());
                write(index, *slot);
            }
        }
    }
}
