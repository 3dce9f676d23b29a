//! All nodes' votes, as they are in etcd, and what they come to.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    health::vote::{Candidate, Tally, Vote, decode},
    shared::store::News,
};

/// What a node puts into etcd: its name, and its votes in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Part {
    /// That it is there.
    Name,
    /// Its votes on some of the backends.
    Votes(u8),
}

/// `LEASE` or `LEASE/PART`, after the prefix, both in hexadecimal.
pub(super) fn key(prefix: &str, lease: i64, part: Part) -> String {
    match part {
        Part::Name => format!("{prefix}{lease:x}"),
        Part::Votes(part) => format!("{prefix}{lease:x}/{part:02x}"),
    }
}

/// What is in etcd of one node.
#[derive(Default)]
struct Node {
    parts: HashMap<Part, Vec<u8>>,
}

/// All nodes' votes.
pub(super) struct Ballots {
    prefix: String,
    /// By lease: it ends with its node.
    nodes: BTreeMap<i64, Node>,
    tallies: HashMap<Candidate, Tally>,
}

impl Ballots {
    pub(super) fn new(prefix: String) -> Self {
        Self {
            prefix,
            nodes: BTreeMap::new(),
            tallies: HashMap::new(),
        }
    }

    /// What is there, and nothing else; whose votes have changed by that.
    pub(super) fn replace(&mut self, found: &[News]) -> HashSet<Candidate> {
        let mut new = Self::new(self.prefix.clone());
        new.update(found);
        let old = std::mem::replace(self, new);
        let all = old.tallies.keys().chain(self.tallies.keys()).copied();
        all.filter(|one| old.tallies.get(one) != self.tallies.get(one))
            .collect()
    }

    /// What has come; whose votes may have changed by that.
    pub(super) fn update(&mut self, news: &[News]) -> HashSet<Candidate> {
        let mut touched = HashSet::new();
        for (key, value) in news {
            // Others may have put there what they liked.
            if let Some((lease, part)) = self.parse(key) {
                self.set(lease, part, value.clone(), &mut touched);
            }
        }
        touched
    }

    /// Whose key this is, and of what.
    pub(super) fn parse(&self, key: &str) -> Option<(i64, Part)> {
        let rest = key.strip_prefix(&self.prefix)?;
        let (lease, part) = match rest.split_once('/') {
            None => (rest, Part::Name),
            Some((lease, part)) => (lease, Part::Votes(u8::from_str_radix(part, 16).ok()?)),
        };
        Some((i64::from_str_radix(lease, 16).ok()?, part))
    }

    fn set(
        &mut self,
        lease: i64,
        part: Part,
        value: Option<Vec<u8>>,
        touched: &mut HashSet<Candidate>,
    ) {
        let node = self.nodes.entry(lease).or_default();
        let new = match part {
            Part::Name => Vec::new(),
            Part::Votes(_) => votes(value.as_ref()),
        };
        let old = match value {
            Some(value) => node.parts.insert(part, value),
            None => node.parts.remove(&part),
        };
        if node.parts.is_empty() {
            self.nodes.remove(&lease);
        }
        if part == Part::Name {
            return;
        }
        let old = votes(old.as_ref());
        for &Vote { candidate, healthy } in &old {
            let tally = self.tallies.entry(candidate).or_default();
            tally.subtract(healthy);
            touched.insert(candidate);
        }
        for Vote { candidate, healthy } in new {
            let tally = self.tallies.entry(candidate).or_default();
            tally.add(healthy);
            touched.insert(candidate);
        }
        for Vote { candidate, .. } in old {
            if self.tally(candidate) == Tally::default() {
                self.tallies.remove(&candidate);
            }
        }
    }

    /// The votes on a backend.
    pub(super) fn tally(&self, candidate: Candidate) -> Tally {
        self.tallies.get(&candidate).copied().unwrap_or_default()
    }

    /// What is in etcd of this part of a node's.
    pub(super) fn part(&self, lease: i64, part: Part) -> Option<&[u8]> {
        let node = self.nodes.get(&lease)?;
        node.parts.get(&part).map(Vec::as_slice)
    }

    /// Names of the nodes that are there.
    pub(super) fn names(&self) -> Vec<String> {
        let names = self.nodes.values();
        let names = names.filter_map(|node| node.parts.get(&Part::Name));
        let names = names.map(|name| String::from_utf8_lossy(name).into_owned());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

/// What is no list of votes counts as none.
fn votes(value: Option<&Vec<u8>>) -> Vec<Vote> {
    value.and_then(|value| decode(value)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::vote::encode;

    const PREFIX: &str = "/k/health/1/";

    fn candidate(number: u16) -> Candidate {
        Candidate::new("p", "b", ([10, 0, 0, 1], number).into())
    }

    fn news(lease: i64, part: u8, votes: &[(u16, bool)]) -> News {
        let vote = |&(number, healthy): &(u16, bool)| Vote {
            candidate: candidate(number),
            healthy,
        };
        let votes = encode(votes.iter().map(vote));
        (key(PREFIX, lease, Part::Votes(part)), Some(votes))
    }

    fn counted(ballots: &Ballots, number: u16) -> (u32, u32) {
        let tally = ballots.tally(candidate(number));
        (tally.healthy, tally.unhealthy)
    }

    #[test]
    fn votes_come_change_and_go_with_their_node() {
        let mut ballots = Ballots::new(PREFIX.to_owned());
        ballots.update(&[
            news(7, 0, &[(1, true), (2, false)]),
            news(8, 3, &[(1, false), (2, false)]),
            (key(PREFIX, 8, Part::Name), Some(b"eight".to_vec())),
        ]);
        assert_eq!(counted(&ballots, 1), (1, 1));
        assert_eq!(counted(&ballots, 2), (0, 2));
        let touched = ballots.update(&[news(7, 0, &[(2, true), (3, true)])]);
        assert_eq!(touched, [1, 2, 3].map(candidate).into());
        assert_eq!(counted(&ballots, 1), (0, 1));
        assert_eq!(counted(&ballots, 2), (1, 1));
        assert_eq!(ballots.names(), ["eight"]);
        let gone = [Part::Votes(3), Part::Name].map(|part| (key(PREFIX, 8, part), None));
        ballots.update(&gone);
        assert_eq!(counted(&ballots, 1), (0, 0));
        assert_eq!(counted(&ballots, 2), (1, 0));
        assert!(ballots.names().is_empty());
        assert_eq!(ballots.nodes.len(), 1);
        ballots.update(&[(key(PREFIX, 7, Part::Votes(0)), None)]);
        assert!(ballots.nodes.is_empty() && ballots.tallies.is_empty());
    }

    #[test]
    fn what_was_read_anew_is_all_there_is() {
        let mut ballots = Ballots::new(PREFIX.to_owned());
        ballots.update(&[
            news(7, 0, &[(1, true), (2, true)]),
            news(8, 0, &[(1, true)]),
        ]);
        let touched = ballots.replace(&[news(7, 0, &[(1, true), (2, true)])]);
        assert_eq!(touched, [candidate(1)].into());
        assert_eq!(counted(&ballots, 1), (1, 0));
    }

    #[test]
    fn other_keys_and_values_are_nobodys_votes() {
        let mut ballots = Ballots::new(PREFIX.to_owned());
        let odd = [
            "/other/7/00",
            "/k/health/1/",
            "/k/health/1/x/00",
            "/k/health/1/7/zz",
            "/k/health/1/7/0/0",
        ];
        let odd = odd.map(|key| (key.to_owned(), Some(vec![0; 8])));
        assert!(ballots.update(&odd).is_empty());
        let cut = (key(PREFIX, 7, Part::Votes(0)), Some(vec![0; 9]));
        assert!(ballots.update(&[cut]).is_empty());
        assert!(ballots.tallies.is_empty());
    }
}
