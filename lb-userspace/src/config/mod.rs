//! The configuration document, written in TOML or JSON; services and pools are also the
//! resources of the admin API.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::desired::{Mode, Protocol};

mod agent;
mod bounds;
mod check;
mod hash_key;
mod health;
mod interface;
mod load;
mod problem;
mod syntax;
mod unique;

pub use agent::{Admin, Agent, FullNat, Limits};
pub use health::{CheckKind, HealthCheck, StatusRange};
pub use interface::{Interface, XdpMode};
pub(crate) use problem::join;
pub use problem::{ConfigError, Position, Problem, Problems};
pub use syntax::{from_json, from_toml};

/// The whole document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The agent's own settings.
    pub agent: Agent,
    /// Pools by name.
    #[serde(deserialize_with = "unique::map")]
    pub pools: BTreeMap<String, Pool>,
    /// Services by name.
    #[serde(deserialize_with = "unique::map")]
    pub services: BTreeMap<String, Service>,
}

/// Backends that serve the same thing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// How backends are checked; if absent, all count as alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Backends by name.
    #[serde(deserialize_with = "unique::map")]
    pub backends: BTreeMap<String, Backend>,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    /// Share of new flows, relative to the pool's other backends; 0: none.
    #[serde(default = "weight")]
    pub weight: u16,
}

fn weight() -> u16 {
    100
}

/// A service: one `(address, protocol, port)` and the pool that serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The VIP.
    pub address: IpAddr,
    /// The VIP's port, 1 to 65,535.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Forwarding mode.
    pub mode: Mode,
    /// Name of the pool that serves it.
    pub pool: String,
    /// Idle time after which a flow may be forgotten, 1 s to 7 days; see [`Self::idle_timeout`].
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Option::is_none"
    )]
    pub idle_timeout: Option<Duration>,
}

impl Service {
    /// Idle time after which a flow may be forgotten: if not set, 15 minutes for TCP and 30
    /// seconds for UDP.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout.unwrap_or(match self.protocol {
            Protocol::Tcp => Duration::from_secs(15 * 60),
            Protocol::Udp => Duration::from_secs(30),
        })
    }
}
