//! When to make the kernel resolve or confirm the neighbours that targets need.
//!
//! The kernel leaves a stale entry alone until a packet uses it, and XDP's frames do not. So a kick
//! stands for the packets of the data path: a stale entry is kicked soon, which lets the kernel
//! probe it as it would under traffic, and a missing one with a growing pause.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::neighbours::{Key, Neighbours};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The neighbours that targets need, and when each is to be kicked next.
#[derive(Debug, Default)]
pub(super) struct Kicks(HashMap<Key, Kick>);

#[derive(Debug)]
struct Kick {
    due: Instant,
    pause: Duration,
}

impl Kicks {
    /// Sets which neighbours are needed from now on.
    pub(super) fn need(&mut self, needed: HashSet<Key>, now: Instant) {
        self.0.retain(|key, _| needed.contains(key));
        for key in needed {
            self.0.entry(key).or_insert(Kick {
                due: now,
                pause: FIRST_PAUSE,
            });
        }
    }

    pub(super) fn needs(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    /// The neighbours to kick now.
    pub(super) fn due(&mut self, now: Instant, neighbours: &Neighbours) -> Vec<Key> {
        let mut due = Vec::new();
        for (key, kick) in &mut self.0 {
            if !neighbours.wants_kick(key) {
                *kick = Kick {
                    due: now,
                    pause: FIRST_PAUSE,
                };
            } else if kick.due <= now {
                due.push(*key);
                kick.due = now + kick.pause;
                kick.pause = (kick.pause * 2).min(LONGEST_PAUSE);
            }
        }
        due
    }
}
