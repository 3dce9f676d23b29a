//! This node's own votes, and what of them is not in etcd yet.

use std::collections::{BTreeMap, BTreeSet};

use super::ballots::{Ballots, Part};
use crate::health::vote::{Candidate, Vote, encode};

pub(super) struct Own {
    /// This host's name, for people.
    name: String,
    /// In parts, so that a change is a small one.
    parts: BTreeMap<u8, BTreeMap<Candidate, bool>>,
    /// What has not been sent since it changed.
    unsent: BTreeSet<Part>,
    /// What has not been seen in etcd as it is.
    unseen: BTreeSet<Part>,
}

impl Own {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            parts: BTreeMap::new(),
            unsent: BTreeSet::new(),
            unseen: BTreeSet::new(),
        }
    }

    /// Votes anew, or takes a vote back.
    pub(super) fn cast(&mut self, candidate: Candidate, vote: Option<bool>) {
        let votes = self.parts.entry(candidate.part()).or_default();
        let old = match vote {
            Some(healthy) => votes.insert(candidate, healthy),
            None => votes.remove(&candidate),
        };
        if votes.is_empty() {
            self.parts.remove(&candidate.part());
        }
        if old != vote {
            self.differs(Part::Votes(candidate.part()));
        }
    }

    fn differs(&mut self, part: Part) {
        self.unsent.insert(part);
        self.unseen.insert(part);
    }

    /// Begins anew with what is in etcd.
    pub(super) fn begin(&mut self, ballots: &Ballots, lease: i64) {
        self.unsent.clear();
        self.unseen.clear();
        let all = (0..=u8::MAX).map(Part::Votes).chain([Part::Name]);
        all.for_each(|part| self.see(part, ballots, lease));
    }

    /// Looks at a part in etcd: it is there as it should be, or it is to be sent.
    pub(super) fn see(&mut self, part: Part, ballots: &Ballots, lease: i64) {
        match ballots.part(lease, part) == self.value(part).as_deref() {
            true => drop(self.unseen.remove(&part)),
            false => self.differs(part),
        }
    }

    fn value(&self, part: Part) -> Option<Vec<u8>> {
        let Part::Votes(part) = part else {
            return Some(self.name.clone().into_bytes());
        };
        let votes = self.parts.get(&part)?.iter();
        let vote = |(&candidate, &healthy)| Vote { candidate, healthy };
        Some(encode(votes.map(vote)))
    }

    /// What is to be sent now.
    pub(super) fn take_unsent(&mut self) -> Vec<(Part, Option<Vec<u8>>)> {
        let unsent = std::mem::take(&mut self.unsent).into_iter();
        unsent.map(|part| (part, self.value(part))).collect()
    }

    /// Whether there is anything to send.
    pub(super) fn is_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether all votes are in etcd, so that all nodes count them.
    pub(super) fn is_settled(&self) -> bool {
        self.unseen.is_empty()
    }
}
