//! Events, logged by a task: the thread that keeps the timers never waits for a terminal.

use tokio::sync::mpsc;

use crate::events::{self, Kind};

/// Events that may wait; more are lost.
const WAITING: usize = 256;

/// Something that people should know.
#[derive(Debug)]
pub(super) enum Event {
    /// As it should be, or expected.
    Info { group: String, message: String },
    /// To be looked after.
    Warning { group: String, message: String },
}

/// Where events go.
#[derive(Clone)]
pub(super) struct Log(mpsc::Sender<Event>);

impl Log {
    /// Starts the task, which ends with the last of these.
    pub(super) fn start() -> Self {
        let (events, mut incoming) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            while let Some(event) = incoming.recv().await {
                match event {
                    Event::Info { group, message } => events::info(Kind::Group, group, message),
                    Event::Warning { group, message } => events::warn(Kind::Group, group, message),
                }
            }
        });
        Self(events)
    }

    pub(super) fn info(&self, group: &str, message: impl ToString) {
        let (group, message) = (group.to_owned(), message.to_string());
        // A full queue must not hold up the timers.
        let _ = self.0.try_send(Event::Info { group, message });
    }

    pub(super) fn warn(&self, group: &str, message: impl ToString) {
        let (group, message) = (group.to_owned(), message.to_string());
        let _ = self.0.try_send(Event::Warning { group, message });
    }
}
