//! Telling other nodes of flows.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Where this node speaks with the others that are to know its flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sync {
    /// This node's own address and UDP port.
    pub listen: SocketAddr,
    /// The other nodes'.
    pub peers: Vec<SocketAddr>,
    /// A file with the key that all have: 64 hex digits.
    pub key_file: PathBuf,
}
