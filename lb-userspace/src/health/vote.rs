//! How nodes agree: each votes on the backends that it checks, and the majority decides.

use std::{
    hash::Hasher as _,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

use super::Health;

/// The backend that a vote is about, in so few bytes that the votes on a hundred thousand fit
/// into a message: a hash of pool, name and address, the same on all nodes and in all versions.
/// Its lowest bit is clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Candidate(u64);

impl Candidate {
    /// Another address makes another one: votes on the old server say nothing of the new.
    pub fn new(pool: &str, backend: &str, address: SocketAddr) -> Self {
        let mut hasher = SipHasher24::new();
        for name in [pool, backend] {
            hasher.write(name.as_bytes());
            // No byte of UTF-8: names cannot run into each other.
            hasher.write(&[0xff]);
        }
        match address.ip() {
            IpAddr::V4(v4) => hasher.write(&v4.octets()),
            IpAddr::V6(v6) => hasher.write(&v6.octets()),
        }
        hasher.write(&address.port().to_be_bytes());
        Self(hasher.finish() & !1)
    }

    /// Which of 256 parts of a node's votes it is in.
    pub fn part(self) -> u8 {
        self.0.to_be_bytes()[0]
    }
}

/// A vote of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// On whom.
    pub candidate: Candidate,
    /// What that node's checks say.
    pub healthy: bool,
}

/// Votes as they are sent: 8 bytes each, in network byte order; the lowest bit is set where the
/// backend is healthy.
pub fn encode(votes: impl IntoIterator<Item = Vote>) -> Vec<u8> {
    let bytes = |vote: Vote| (vote.candidate.0 | u64::from(vote.healthy)).to_be_bytes();
    votes.into_iter().flat_map(bytes).collect()
}

/// Undoes [`encode`]; nothing where that did not make it.
pub fn decode(bytes: &[u8]) -> Option<Vec<Vote>> {
    let (votes, []) = bytes.as_chunks() else {
        return None;
    };
    let vote = |bytes: &[u8; 8]| {
        let word = u64::from_be_bytes(*bytes);
        Vote {
            candidate: Candidate(word & !1),
            healthy: word & 1 == 1,
        }
    };
    Some(votes.iter().map(vote).collect())
}

/// Votes on a backend, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Nodes whose checks it passes.
    pub healthy: u32,
    /// Nodes whose checks it fails.
    pub unhealthy: u32,
}

impl Tally {
    /// What the majority says. Where there is none it is healthy: half of the nodes do reach it.
    pub fn verdict(self) -> Health {
        match (self.healthy, self.unhealthy) {
            (0, 0) => Health::Unknown,
            (healthy, unhealthy) if unhealthy > healthy => Health::Unhealthy,
            _ => Health::Healthy,
        }
    }

    /// Nodes that vote.
    pub fn total(self) -> u32 {
        self.healthy + self.unhealthy
    }

    /// Counts one more.
    pub fn add(&mut self, healthy: bool) {
        *self.of(healthy) += 1;
    }

    /// Takes back one that was counted.
    pub fn subtract(&mut self, healthy: bool) {
        let count = self.of(healthy);
        *count = count.saturating_sub(1);
    }

    fn of(&mut self, healthy: bool) -> &mut u32 {
        match healthy {
            true => &mut self.healthy,
            false => &mut self.unhealthy,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn tally(votes: &[bool]) -> Tally {
        let mut tally = Tally::default();
        votes.iter().for_each(|&healthy| tally.add(healthy));
        tally
    }

    #[test]
    fn one_node_cannot_take_a_backend_out_and_two_of_three_can() {
        let verdict = |votes: &[bool]| tally(votes).verdict();
        assert_eq!(verdict(&[]), Health::Unknown);
        assert_eq!(verdict(&[false]), Health::Unhealthy, "nobody else knows it");
        assert_eq!(verdict(&[true, false]), Health::Healthy, "a tie");
        assert_eq!(verdict(&[true, true, false]), Health::Healthy);
        assert_eq!(verdict(&[true, false, false]), Health::Unhealthy);
        assert_eq!(verdict(&[true, true, false, false]), Health::Healthy);
    }

    #[test]
    fn a_candidate_is_the_same_everywhere_and_no_other() {
        let at = |text: &str| text.parse().expect("an address");
        let one = Candidate::new("web", "be1", at("10.0.0.1:80"));
        // Fixed: nodes of other versions count its votes too.
        assert_eq!(one, Candidate(PINNED));
        for (pool, backend, address) in [
            ("we", "bbe1", "10.0.0.1:80"),
            ("web", "be2", "10.0.0.1:80"),
            ("web", "be1", "10.0.0.2:80"),
            ("web", "be1", "10.0.0.1:81"),
            ("web", "be1", "[::ffff:10.0.0.1]:80"),
        ] {
            assert_ne!(one, Candidate::new(pool, backend, at(address)));
        }
    }

    const PINNED: u64 = 0xfb6b_0c80_d12d_be0c;

    #[test]
    fn votes_on_a_hundred_thousand_are_small_in_each_part() {
        let mut parts = [0; 256];
        for number in 0..100_000u32 {
            let address = (std::net::Ipv4Addr::from(0x0a00_0000 + number), 80).into();
            let candidate = Candidate::new("pool", &format!("backend-{number}"), address);
            parts[usize::from(candidate.part())] += 8;
        }
        assert!(parts.iter().max() < Some(&5000), "{parts:?}");
    }

    proptest! {
        #[test]
        fn unhealthy_needs_more_than_half_of_those_who_vote(votes in vec(any::<bool>(), 0..20)) {
            let against = votes.iter().filter(|healthy| !**healthy).count();
            let expected = match votes.len() {
                0 => Health::Unknown,
                all if against * 2 > all => Health::Unhealthy,
                _ => Health::Healthy,
            };
            prop_assert_eq!(tally(&votes).verdict(), expected);
        }

        /// In whatever order votes come and go, those count that are there.
        #[test]
        fn what_was_taken_back_does_not_count(votes in vec((any::<bool>(), any::<bool>()), 0..20)) {
            let mut counted = Tally::default();
            votes.iter().for_each(|(healthy, _)| counted.add(*healthy));
            votes.iter().filter(|(_, goes)| *goes).for_each(|(healthy, _)| counted.subtract(*healthy));
            let stay: Vec<_> = votes.iter().filter(|(_, goes)| !goes).map(|(healthy, _)| *healthy).collect();
            prop_assert_eq!(counted, tally(&stay));
        }

        #[test]
        fn votes_arrive_as_they_were_sent(words in vec((any::<u64>(), any::<bool>()), 0..50)) {
            let vote = |&(word, healthy): &(u64, bool)| Vote { candidate: Candidate(word & !1), healthy };
            let votes: Vec<_> = words.iter().map(vote).collect();
            let bytes = encode(votes.iter().copied());
            prop_assert_eq!(decode(&bytes), Some(votes));
        }

        #[test]
        fn what_others_put_there_is_no_vote(bytes in vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode(&bytes).is_some(), bytes.len() % 8 == 0);
        }
    }
}
