//! What the data path should be doing: the whole input of [`crate::dataplane`], made by the
//! state owner from configuration and health. Plain data; nothing here is read from maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
    net::IpAddr,
    sync::Arc,
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
    /// Left to the kernel: this host's own HTTP proxy listens on the VIP.
    Local,
}

/// How a new flow's backend is chosen.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// By a hash of addresses and ports: nothing need be remembered.
    #[default]
    Maglev,
    /// By a hash of the client's address: likewise, and a client stays with its backend.
    SourceHash,
    /// Each in turn.
    RoundRobin,
    /// Of two the one with fewer connections for its weight.
    LeastConnections,
    /// By chance.
    Random,
}

/// Which flows of a UDP service are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Tracking {
    /// None: a datagram goes where its hash says, whatever went before.
    #[default]
    Hash,
    /// All: datagrams of a flow go where the first went.
    Flow,
}

/// What happens to the connections of a backend that has died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OnDeath {
    /// The client is sent a RST at its next packet.
    #[default]
    Reset,
    /// They go on to another backend.
    Silent,
}

/// What happens to packets that no backend is left for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OnEmpty {
    /// The client is sent a RST, or ICMP's port unreachable.
    #[default]
    Reset,
    /// They are dropped.
    Drop,
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

displayed!(Protocol, Mode, Algorithm);

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
    /// Names of pools that served it or may serve it in the place of `pool`.
    pub other_pools: Vec<String>,
    /// Idle time after which a flow may be forgotten.
    pub idle_timeout: Duration,
    /// How a new flow's backend is chosen.
    pub algorithm: Algorithm,
    /// How long a client that opens nothing new keeps its backend, if at all.
    pub affinity: Option<Duration>,
    /// UDP: which flows are remembered.
    pub tracking: Tracking,
    /// What becomes of a dead backend's connections.
    pub on_death: OnDeath,
    /// What becomes of packets that no backend is left for.
    pub on_empty: OnEmpty,
}

/// A service that the HTTP proxy of this host serves; packets to it are the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredLocal {
    /// The VIP.
    pub address: IpAddr,
    /// The VIP's TCP port.
    pub port: u16,
    /// Name of a pool in [`Desired::pools`].
    pub pool: String,
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
    /// What it may be given.
    pub condition: Condition,
}

/// What a backend may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// New flows and those that it has.
    InUse,
    /// Those that it has.
    Draining,
    /// Nothing: its flows are lost.
    Dead,
    /// Nothing, and it has had nothing: it has never been seen alive.
    Absent,
}

impl DesiredBackend {
    /// Whether it is to be given new flows.
    pub fn takes_flows(&self) -> bool {
        self.condition == Condition::InUse && self.weight > 0
    }
}

/// A pool's backends by name.
pub type DesiredPool = BTreeMap<String, DesiredBackend>;

/// Everything that the data path and the proxy should be doing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Desired {
    /// Services of the packet path, by name; none is [`Mode::Local`].
    pub services: BTreeMap<String, DesiredService>,
    /// Services of the HTTP proxy, by name.
    pub local: BTreeMap<String, DesiredLocal>,
    /// Pools by name.
    pub pools: BTreeMap<String, Arc<DesiredPool>>,
    /// `full-nat`: addresses of this host that backends see as the source.
    pub source_addresses: Vec<IpAddr>,
    /// `full-nat`: those of other nodes, which this one uses for flows that they have told.
    pub peer_source_addresses: Vec<IpAddr>,
    /// `full-nat`: first and last source port.
    pub source_ports: (u16, u16),
}

/// What of [`Desired`] changes: services and pools by name, `None` for those that go.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Delta {
    /// Services of the packet path.
    pub services: BTreeMap<String, Option<DesiredService>>,
    /// Services of the HTTP proxy.
    pub local: BTreeMap<String, Option<DesiredLocal>>,
    /// Pools.
    pub pools: BTreeMap<String, Option<Arc<DesiredPool>>>,
    /// Pools of which it is known only now who is alive: flows that nobody remembers belong where
    /// the tables say, as on nodes that have long known it.
    pub begun: BTreeSet<String>,
}

impl Delta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.local.is_empty() && self.pools.is_empty()
    }

    /// What makes `new` of `old`, their sources aside.
    pub fn between(old: &Desired, new: &Desired) -> Self {
        Self {
            services: differences(&old.services, &new.services),
            local: differences(&old.local, &new.local),
            pools: differences(&old.pools, &new.pools),
            begun: BTreeSet::new(),
        }
    }
}

impl Desired {
    /// Makes a change; returns the one that undoes it.
    pub fn change(&mut self, delta: Delta) -> Delta {
        Delta {
            services: exchange(&mut self.services, delta.services),
            local: exchange(&mut self.local, delta.local),
            pools: exchange(&mut self.pools, delta.pools),
            begun: BTreeSet::new(),
        }
    }
}

/// What of a map changes: `None` for what goes.
type Changes<T> = BTreeMap<String, Option<T>>;

fn differences<T: Clone + PartialEq>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
) -> Changes<T> {
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let gone = gone.map(|name| (name.clone(), None));
    let other = new
        .iter()
        .filter(|(name, new)| old.get(*name) != Some(*new));
    let other = other.map(|(name, new)| (name.clone(), Some(new.clone())));
    gone.chain(other).collect()
}

fn exchange<T>(all: &mut BTreeMap<String, T>, changes: Changes<T>) -> Changes<T> {
    let exchange = |(name, new): (String, Option<T>)| {
        let old = match new {
            Some(new) => all.insert(name.clone(), new),
            None => all.remove(&name),
        };
        (name, old)
    };
    changes.into_iter().map(exchange).collect()
}
