//! The configuration document, written in TOML or JSON; services and pools are also the
//! resources of the admin API.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use http::{Http, PoolHttp};

use crate::desired::{Algorithm, Mode, OnDeath, OnEmpty, Protocol, Tracking};

mod agent;
mod bounds;
mod check;
pub mod ha;
mod hash_key;
mod health;
pub mod http;
mod index;
mod interface;
mod live;
mod load;
mod network;
mod problem;
mod size;
mod split;
mod syntax;
mod tls;
mod traces;
mod unique;

pub use agent::{Admin, Agent, FullNat, Limits, Pin, Proxy};
pub use ha::Ha;
pub use health::{CheckKind, HealthCheck, StatusRange};
pub use interface::{Interface, XdpMode};
pub use live::{Changed, Draft, Live, Touched};
pub use network::Network;
pub(crate) use problem::join;
pub use problem::{ConfigError, Position, Problem, Problems};
pub use size::Size;
pub use split::{Local, Shared};
pub use syntax::{from_json, from_toml};
pub use tls::{Alpn, Certificate, ClientAuth, ClientHeaders, Tls, TlsVersion, UnknownNames};
pub use traces::{Traces, TracesProtocol};

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
    /// Addresses shared with other nodes.
    #[serde(skip_serializing_if = "is_default")]
    pub ha: Ha,
}

/// Backends that serve the same thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// How backends are checked; if absent, all count as alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Percent of the backends' weight that health checks leave in use at least, 0 to 100:
    /// where fewer are healthy, the failed are used too. 0: off.
    pub health_floor_percent: u8,
    /// Time over which a backend that comes back, or is added, gets to its full share; up to
    /// 1 h.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Duration>,
    /// What matters to services of mode `local`.
    #[serde(skip_serializing_if = "is_default")]
    pub http: PoolHttp,
    /// Backends by name.
    #[serde(deserialize_with = "unique::map")]
    pub backends: BTreeMap<String, Backend>,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            health_check: None,
            health_floor_percent: 50,
            slow_start: None,
            http: PoolHttp::default(),
            backends: BTreeMap::new(),
        }
    }
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
    /// How a new flow's backend is chosen.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How long a client that opens nothing new keeps its backend, 1 s to 7 days; if absent, it
    /// does not.
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Option::is_none"
    )]
    pub affinity: Option<Duration>,
    /// `udp`: which flows are remembered.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tracking: Tracking,
    /// What becomes of a dead backend's connections.
    #[serde(default)]
    pub on_backend_death: OnDeath,
    /// What becomes of packets that no backend is left for.
    #[serde(default)]
    pub on_no_backend: OnEmpty,
    /// Name of a pool that serves it while every backend of `pool` fails its checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_pool: Option<String>,
    /// `local`: what is done with HTTP.
    #[serde(default, skip_serializing_if = "is_default")]
    pub http: Http,
    /// `local`: TLS with clients; plain text if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Service {
    /// Names of the pools that may serve it; a name may come twice.
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        let passthrough = self.tls.iter().flat_map(|tls| tls.passthrough.values());
        std::iter::once(self.pool.as_str())
            .chain(self.fallback_pool.as_deref())
            .chain(self.http.pools())
            .chain(passthrough.map(String::as_str))
    }

    /// Idle time after which a flow may be forgotten: if not set, 15 minutes for TCP and 30
    /// seconds for UDP.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout.unwrap_or(match self.protocol {
            Protocol::Tcp => Duration::from_secs(15 * 60),
            Protocol::Udp => Duration::from_secs(30),
        })
    }
}
