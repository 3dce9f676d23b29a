//! Rules of telling other nodes of flows.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{Problems, no_host};
use crate::config::ha::Sync;

pub(super) fn check(problems: &mut Problems, sync: &Sync) {
    endpoint(problems, "ha.sync.listen".to_owned(), sync.listen);
    if sync.peers.is_empty() {
        problems.add("ha.sync.peers", "[]", "at least one other node");
    }
    let mut seen = BTreeSet::from([sync.listen]);
    for (index, &peer) in sync.peers.iter().enumerate() {
        let field = format!("ha.sync.peers[{index}]");
        if peer.is_ipv4() != sync.listen.is_ipv4() {
            let expected = "an address of the family that `listen` has";
            problems.add(&field, peer, expected);
        }
        if !seen.insert(peer) {
            problems.add(&field, peer, "each node only once, and not this one");
        }
        endpoint(problems, field, peer);
    }
    if !sync.key_file.is_absolute() {
        let expected = "an absolute path";
        problems.add("ha.sync.key_file", sync.key_file.display(), expected);
    }
}

fn endpoint(problems: &mut Problems, field: String, at: SocketAddr) {
    if at.port() == 0 {
        problems.add(&field, at, "a port from 1 to 65535");
    }
    let loopback = at.ip().is_loopback();
    if let Some(wrong) = no_host(at.ip()).filter(|_| !loopback) {
        problems.add(field, at, format!("the address of a host, not {wrong}"));
    }
}
