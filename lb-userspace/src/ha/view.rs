//! What is shown of groups: the bodies of the admin API's answers.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::vrrp::Role;
use crate::config::ha::VirtualAddress;

/// A group at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupView {
    /// What this node is for it.
    pub role: Role,
    /// Since when, in seconds since 1970.
    pub since: f64,
    /// Its priority, as tracking has left it.
    pub priority: u8,
    /// Its priority, as configured.
    pub configured_priority: u8,
    /// Its addresses.
    pub addresses: Vec<VirtualAddress>,
    /// Where they are.
    pub interface: String,
    /// Its virtual router id.
    pub vrid: u8,
    /// What it sends from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Why it cannot speak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Groups of the same word fail over together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<String>,
    /// Nodes that have been heard, by address.
    pub peers: BTreeMap<IpAddr, PeerView>,
    /// What is tracked, by name.
    pub track: BTreeMap<String, TrackView>,
    /// The last changes of role, the newest first.
    pub transitions: Vec<TransitionView>,
    /// What has happened since the agent started.
    pub counters: GroupCounters,
}

/// A node that has been heard. Only the active one speaks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// The priority that it had last; 0: it gave up.
    pub priority: u8,
    /// Seconds between its advertisements.
    pub advert_interval: f64,
    /// Seconds since the last one.
    pub heard_seconds_ago: f64,
}

/// Something that is tracked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackView {
    /// Whether it is as it should be.
    pub passes: bool,
    /// Why, in words.
    pub reason: String,
    /// How much the priority is lowered by while it is not.
    pub lower_by: u8,
}

/// A change of role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransitionView {
    /// When, in seconds since 1970.
    pub at: f64,
    /// From this role.
    pub from: Role,
    /// To this.
    pub to: Role,
    /// Why, in words.
    pub reason: String,
}

/// What has happened to a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCounters {
    /// Changes of role.
    pub transitions: u64,
    /// Advertisements sent, for each peer if unicast.
    pub adverts_sent: u64,
    /// Advertisements of other nodes.
    pub adverts_received: u64,
    /// Messages with this group's id that were no valid advertisements.
    pub adverts_discarded: u64,
    /// Messages, announcements or addresses that the kernel refused.
    pub errors: u64,
}

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as f64 / 1000.0
}
