//! What one agent tells the next that takes over from it: who holds addresses goes on to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::vrrp::Role;

/// How it stood with this node when its agent stopped to keep addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Groups by name.
    pub groups: BTreeMap<String, KnownGroup>,
    /// VIPs that it announced.
    pub announced: BTreeSet<IpAddr>,
    /// Whether it had the flows of other nodes.
    pub synced: bool,
    /// The lease in etcd under which its votes on health are, if it votes.
    pub lease: Option<i64>,
}

/// A group. The addresses are at the interface, on a lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KnownGroup {
    /// What the node was for it.
    pub role: Role,
    /// What is tracked, by name.
    pub track: BTreeMap<String, KnownRule>,
}

/// Something that is tracked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownRule {
    /// Whether it was as it should be.
    pub passes: bool,
    /// Why, in words.
    pub reason: String,
}
