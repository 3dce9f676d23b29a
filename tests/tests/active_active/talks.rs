//! Connections in every mode, and which of them broke when.

use std::time::Duration;

use anyhow::Result;
use weir_tests::conversations::Conversations;

use crate::scene::{MODES, Scene};

/// Between two lines of a connection.
const PAUSE: Duration = Duration::from_millis(500);

/// Connections in every mode, as many over IPv4 as over IPv6.
#[derive(Default)]
pub(crate) struct Talks {
    talks: Vec<Talk>,
}

struct Talk {
    mode: &'static str,
    count: u64,
    held: Conversations,
    /// How many were broken when they were last looked at.
    seen: u64,
}

impl Talks {
    /// Opens as many in each mode.
    pub(crate) fn open(&mut self, scene: &Scene, connections: u64) -> Result<()> {
        let count = connections / 2;
        for (mode, port) in MODES {
            for v4 in [true, false] {
                let target = (scene.vip(v4), port).into();
                let held = Conversations::start(scene.lab.client(), target, count, PAUSE)?;
                self.talks.push(Talk {
                    mode,
                    count,
                    held,
                    seen: 0,
                });
            }
        }
        Ok(())
    }

    /// Waits until each has said something since, and prints how many broke.
    pub(crate) fn look(&mut self, event: &str) {
        std::thread::sleep(PAUSE * 4);
        for (mode, _) in MODES {
            let (mut open, mut broken) = (0, 0);
            for talk in self.talks.iter_mut().filter(|talk| talk.mode == mode) {
                let now = talk.held.broken();
                open += talk.count - talk.seen;
                broken += now - std::mem::replace(&mut talk.seen, now);
            }
            println!("{event}: {mode}: {broken} of {open} connections broke");
        }
    }

    /// Why connections broke, with their mode.
    pub(crate) fn finish(self) -> Result<Vec<String>> {
        let mut failures = Vec::new();
        let mut longest = Duration::ZERO;
        for Talk { mode, held, .. } in self.talks {
            let report = held.finish()?;
            longest = longest.max(report.longest);
            failures.extend(report.failures.iter().map(|why| format!("{mode}: {why}")));
        }
        println!("the longest that an answer took: {longest:?}");
        Ok(failures)
    }
}
