//! What the data path is loaded with; fixed until it is loaded again.

use std::{net::IpAddr, path::PathBuf};

/// How a program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// In the driver, or else in the kernel's generic path with a warning.
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the generic path.
    Generic,
}

/// An interface that Weir's program runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// How to attach.
    pub attach: Attach,
}

/// Sizes of the data path's tables. Memory is taken at once, but for rings, which take it as they
/// come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services.
    pub services: u32,
    /// Backends, in all pools.
    pub backends: u32,
    /// Flows of tracked slots that are remembered at a time.
    pub flows: u32,
    /// Flows that `full-nat` remembers at a time; 0: no service is `full-nat`.
    pub translations: u32,
}

/// Everything that is fixed when the data path is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Interfaces to run on.
    pub interfaces: Vec<Interface>,
    /// Secret of the flow hash.
    pub hash_key: [u64; 2],
    /// Table sizes.
    pub limits: Limits,
    /// Where it is pinned, if it is to outlive the agent.
    pub pin: Option<Pin>,
    /// Whether other nodes are told what is remembered: see [`super::DataPlane::peers`].
    pub tell_peers: bool,
}

/// How the data path outlives the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Where links and maps are pinned: a directory in a BPF file system, this agent's alone. If
    /// an earlier agent has left something there, this one goes on with it.
    pub directory: PathBuf,
    /// What `full-nat` services send from: an earlier agent's translations are used on if it
    /// had the same.
    pub source_addresses: Vec<IpAddr>,
    /// Those of other nodes, likewise.
    pub peer_source_addresses: Vec<IpAddr>,
}
