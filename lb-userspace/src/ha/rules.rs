//! What is tracked for a group, and how much its failures cost.

use std::collections::BTreeMap;

use super::{handover::KnownRule, interfaces::Interfaces, view::TrackView};
use crate::config::ha::{Group, Track, TrackKind};

/// The rules of a group, by name.
pub(super) struct Rules(BTreeMap<String, Rule>);

struct Rule {
    track: Track,
    /// `interface`, `xdp`: which.
    interface: String,
    passes: bool,
    reason: String,
}

impl Rules {
    /// Nothing counts as passing before it has passed.
    pub(super) fn new(group: &Group) -> Self {
        let rule = |(name, track): (&String, &Track)| {
            let interface = track.interface.as_ref().unwrap_or(&group.interface);
            let rule = Rule {
                track: track.clone(),
                interface: interface.clone(),
                passes: false,
                reason: "not known yet".to_owned(),
            };
            (name.clone(), rule)
        };
        Self(group.track.iter().map(rule).collect())
    }

    /// Interfaces whose XDP program matters.
    pub(super) fn xdp(&self) -> impl Iterator<Item = &str> {
        let rules = self.0.values();
        let xdp = rules.filter(|rule| rule.track.kind == TrackKind::Xdp);
        xdp.map(|rule| rule.interface.as_str())
    }

    /// Takes in how interfaces are; what has changed, by name.
    pub(super) fn look(&mut self, interfaces: &Interfaces) -> Vec<(String, bool, String)> {
        let mut changed = Vec::new();
        for (name, rule) in &mut self.0 {
            let there = interfaces.get(&rule.interface);
            let (passes, is) = match (rule.track.kind, there) {
                (TrackKind::Interface | TrackKind::Xdp, None) => (false, "is not there"),
                (TrackKind::Interface, Some(interface)) if interface.up => (true, "is up"),
                (TrackKind::Interface, Some(_)) => (false, "is down"),
                (TrackKind::Xdp, Some(interface)) if interface.xdp => (true, "has a program"),
                (TrackKind::Xdp, Some(_)) => (false, "has no XDP program"),
                _ => continue,
            };
            let reason = format!("{} {is}", rule.interface);
            if rule.set(passes, &reason) {
                changed.push((name.clone(), passes, reason));
            }
        }
        changed
    }

    /// Takes in what was found out elsewhere; whether it is news.
    pub(super) fn set(&mut self, name: &str, passes: bool, reason: &str) -> bool {
        (self.0.get_mut(name)).is_some_and(|rule| rule.set(passes, reason))
    }

    /// Begins with what the agent before this one had found.
    pub(super) fn learn(&mut self, known: &BTreeMap<String, KnownRule>) {
        for (name, rule) in known {
            self.set(name, rule.passes, &rule.reason);
        }
    }

    /// What was found, for the agent that takes over.
    pub(super) fn known(&self) -> BTreeMap<String, KnownRule> {
        let known = |(name, rule): (&String, &Rule)| {
            let known = KnownRule {
                passes: rule.passes,
                reason: rule.reason.clone(),
            };
            (name.clone(), known)
        };
        self.0.iter().map(known).collect()
    }

    /// How much lower the priority is to be.
    pub(super) fn penalty(&self) -> u32 {
        let failing = self.0.values().filter(|rule| !rule.passes);
        failing.map(|rule| u32::from(rule.track.lower_by)).sum()
    }

    pub(super) fn view(&self) -> BTreeMap<String, TrackView> {
        let view = |(name, rule): (&String, &Rule)| {
            let view = TrackView {
                passes: rule.passes,
                reason: rule.reason.clone(),
                lower_by: rule.track.lower_by,
            };
            (name.clone(), view)
        };
        self.0.iter().map(view).collect()
    }
}

impl Rule {
    fn set(&mut self, passes: bool, reason: &str) -> bool {
        let news = self.passes != passes || self.reason != reason;
        self.passes = passes;
        reason.clone_into(&mut self.reason);
        news
    }
}
