//! What has happened to this node lately: logged, and kept for whoever asks.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::{self, Display},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// Events of each kind that are kept: many of one kind do not push out the few of another.
const KEPT: usize = 200;
/// Bytes of a text that are kept.
const LONGEST: usize = 400;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A group of shared addresses: its role here, and what hinders it.
    Group,
    /// A VIP that is announced, or not any more.
    Vip,
    /// Another node that is told of flows.
    Node,
    /// A backend's health.
    Health,
    /// A pool's health floor.
    Floor,
    /// Whether nodes agree on health.
    Agreement,
    /// The configuration in etcd.
    Configuration,
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Something that has happened; also an element of the admin API's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Its number since the agent started: the first is 1.
    pub number: u64,
    /// When, in seconds since 1970.
    pub at: f64,
    /// What it is about.
    pub kind: Kind,
    /// The one that it is about, such as a group's name or `POOL/BACKEND`; empty: the node.
    pub subject: String,
    /// What has happened.
    pub text: String,
    /// Whether it is to be looked after.
    pub warning: bool,
}

#[derive(Default)]
struct Events {
    last: u64,
    by_kind: BTreeMap<Kind, OfKind>,
}

#[derive(Default)]
struct OfKind {
    count: u64,
    kept: VecDeque<EventView>,
}

/// The process is one agent, and all its parts tell of events.
static EVENTS: Mutex<Events> = Mutex::new(Events {
    last: 0,
    by_kind: BTreeMap::new(),
});

/// As it should be, or expected.
pub(crate) fn info(kind: Kind, subject: impl Display, text: impl Display) {
    let (subject, text) = (subject.to_string(), text.to_string());
    tracing::info!(%kind, subject, "{text}");
    events().add(kind, subject, text, false);
}

/// To be looked after.
pub(crate) fn warn(kind: Kind, subject: impl Display, text: impl Display) {
    let (subject, text) = (subject.to_string(), text.to_string());
    tracing::warn!(%kind, subject, "{text}");
    events().add(kind, subject, text, true);
}

/// The last events of each kind, the oldest first.
pub fn last() -> Vec<EventView> {
    let events = events();
    let kept = events.by_kind.values().flat_map(|of_kind| &of_kind.kept);
    let mut all: Vec<_> = kept.cloned().collect();
    all.sort_by_key(|event| event.number);
    all
}

/// How many there have been, by kind.
pub(crate) fn counts() -> BTreeMap<Kind, u64> {
    let events = events();
    let counts = events.by_kind.iter();
    counts
        .map(|(kind, of_kind)| (*kind, of_kind.count))
        .collect()
}

fn events() -> MutexGuard<'static, Events> {
    EVENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Events {
    fn add(&mut self, kind: Kind, subject: String, mut text: String, warning: bool) {
        text.truncate(text.floor_char_boundary(LONGEST));
        self.last += 1;
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        let event = EventView {
            number: self.last,
            at: at.unwrap_or_default().as_millis() as f64 / 1000.0,
            kind,
            subject,
            text,
            warning,
        };
        let of_kind = self.by_kind.entry(kind).or_default();
        of_kind.count += 1;
        if of_kind.kept.len() == KEPT {
            of_kind.kept.pop_front();
        }
        of_kind.kept.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_of_a_kind_leave_those_of_another() {
        let mut events = Events::default();
        events.add(Kind::Group, "front".into(), "active".into(), false);
        for number in 0..1000 {
            events.add(Kind::Health, format!("p/{number}"), "ä".repeat(300), true);
        }
        assert_eq!(events.by_kind[&Kind::Group].kept.len(), 1);
        let health = &events.by_kind[&Kind::Health];
        assert_eq!((health.count, health.kept.len()), (1000, KEPT));
        let last = health.kept.back().expect("there are some");
        assert_eq!((&*last.subject, last.number), ("p/999", 1001));
        assert_eq!(last.text.len(), LONGEST);
    }
}
