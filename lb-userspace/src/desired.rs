//! What the data path should be doing: the whole input of [`crate::dataplane`], made by the
//! state owner from configuration and health. Plain data; nothing here is read from maps.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    net::IpAddr,
    time::Duration,
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A transport protocol that services balance.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// How a service's packets are forwarded.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Destination rewritten; backends route through Weir.
    Nat,
    /// Destination and source rewritten; backends need to know nothing of Weir.
    FullNat,
    /// Destination MAC rewritten; backends hold the VIP and answer directly.
    Dsr,
}

macro_rules! displayed {
    ($($type:ty),+) => {$(
        impl Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.serialize(f)
            }
        }
    )+};
}

displayed!(Protocol, Mode);

/// A service: one `(address, protocol, port)` and the pool that serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredService {
    /// The VIP.
    pub address: IpAddr,
    /// The VIP's port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Forwarding mode.
    pub mode: Mode,
    /// Name of a pool in [`Desired::pools`].
    pub pool: String,
    /// Idle time after which a flow may be forgotten.
    pub idle_timeout: Duration,
}

/// A backend of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredBackend {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Share of new flows, relative to the pool's other backends; 0: none.
    pub weight: u32,
    /// Whether health checks (and the operator) let it have new flows.
    pub alive: bool,
}

/// Everything that the data path should be doing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Desired {
    /// Services by name.
    pub services: BTreeMap<String, DesiredService>,
    /// Pools by name; each, its backends by name.
    pub pools: BTreeMap<String, BTreeMap<String, DesiredBackend>>,
    /// `full-nat`: addresses of this host that backends see as the source.
    pub source_addresses: Vec<IpAddr>,
    /// `full-nat`: first and last source port.
    pub source_ports: (u16, u16),
}
