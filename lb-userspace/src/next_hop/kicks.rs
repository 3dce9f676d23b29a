//! When to make the kernel resolve or confirm the neighbours that targets need.
//!
//! The kernel leaves a stale entry alone until a packet uses it, and XDP's frames do not. So a kick
//! stands for the packets of the data path: a stale entry is kicked soon, which lets the kernel
//! probe it as it would under traffic, and a missing one with a growing pause.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::neighbours::Key;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A backend that comes late may say nothing by itself, and nobody sends anything to it meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The neighbours that targets need and that want a kick, and when each is to be kicked next.
#[derive(Debug, Default)]
pub(super) struct Kicks(HashMap<Key, Kick>);

#[derive(Debug)]
struct Kick {
    due: Instant,
    pause: Duration,
}

impl Kicks {
    /// A neighbour that is needed wants kicks from now on, or wants none.
    pub(super) fn set(&mut self, key: Key, wanted: bool, now: Instant) {
        match wanted {
            true => {
                self.0.entry(key).or_insert(Kick {
                    due: now,
                    pause: FIRST_PAUSE,
                });
            }
            false => drop(self.0.remove(&key)),
        }
    }

    /// The neighbours to kick now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Key> {
        let mut due = Vec::new();
        for (key, kick) in &mut self.0 {
            if kick.due <= now {
                due.push(*key);
                kick.due = now + kick.pause;
                kick.pause = (kick.pause * 2).min(LONGEST_PAUSE);
            }
        }
        due
    }
}
