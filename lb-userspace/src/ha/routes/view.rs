//! What is shown of announced VIPs: the body of the admin API's answer.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

/// All VIPs that this node is to announce, by address.
pub type RoutesView = BTreeMap<IpAddr, RouteView>;

/// A VIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteView {
    /// What this node does about it.
    pub state: RouteState,
    /// Why, in words.
    pub reason: String,
    /// Where it is, or would be.
    pub interface: String,
    /// When its state became so, in seconds since 1970.
    pub since: f64,
    /// Changes of its state since the agent started.
    pub changes: u64,
}

/// What a node does about a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteState {
    /// It is on the interface, put there by the agent.
    Announced,
    /// It is not, since this node cannot serve it.
    Withheld,
    /// It should be, and the kernel does not let it.
    Failed,
    /// It is there for ever, put there by somebody else: the agent leaves it alone.
    Foreign,
}

impl fmt::Display for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Announced => "announced",
            Self::Withheld => "withheld",
            Self::Failed => "failed",
            Self::Foreign => "foreign",
        })
    }
}
