//! Addresses that several nodes announce at the same time, by way of a routing daemon.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

/// Which VIPs are on an interface, for a routing daemon to announce, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Routes {
    /// Where they are added, as /32 or /128.
    pub interface: String,
    /// What it takes to announce one.
    pub announce: Announce,
    /// The VIPs; if absent, those of all services but what groups hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vips: Option<Vec<IpAddr>>,
    /// How long an agent that was told to end goes on forwarding after it has removed them, up
    /// to 10 min.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// How long the kernel keeps them after the agent's death, 1 s to 10 min in whole seconds.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
}

/// What it takes to announce a VIP, beside the data path being attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Announce {
    /// One of its services has a healthy backend.
    #[default]
    Any,
    /// Each of its services has one.
    Every,
    /// Nothing else.
    Always,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            interface: "lo".to_owned(),
            announce: Announce::default(),
            vips: None,
            grace: Duration::from_secs(5),
            lease: Duration::from_secs(3),
        }
    }
}
