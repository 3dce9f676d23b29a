//! What concerns the agent as a whole.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use lb_common::hash::HashKey;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::{Traces, hash_key, interface::Interface};

/// The agent's own settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// Where packets come in; at least one.
    pub interfaces: Vec<Interface>,
    /// Secret of the flow hash, the same on all nodes that share services.
    #[serde(with = "hash_key")]
    pub hash_key: HashKey,
    /// Sizes of the data path's tables.
    pub limits: Limits,
    /// Where the data path is pinned, to outlive the agent.
    pub pin: Pin,
    /// Where the admin API listens.
    pub admin: Admin,
    /// What `full-nat` services send from.
    pub full_nat: FullNat,
    /// The proxy that serves services of mode `local`.
    pub proxy: Proxy,
    /// Where its spans go; nowhere if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<Traces>,
}

impl Agent {
    /// Whether the hash's key is the default, which everyone knows.
    pub fn has_public_key(&self) -> bool {
        self.hash_key == hash_key::DEFAULT
    }
}

impl Default for Agent {
    fn default() -> Agent {
        Agent {
            interfaces: Vec::new(),
            hash_key: hash_key::DEFAULT,
            limits: Limits::default(),
            pin: Pin::default(),
            admin: Admin::default(),
            full_nat: FullNat::default(),
            proxy: Proxy::default(),
            traces: None,
        }
    }
}

/// The proxy that serves services of mode `local`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Proxy {
    /// Threads, each on a CPU of its own, 0 to 1,024; 0: as many as the agent may use CPUs.
    pub workers: u32,
}

/// Sizes of the data path's tables, fixed when they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Services, 1 to 65,535.
    pub services: u32,
    /// Backends of all pools together, 1 to 1,000,000.
    pub backends: u32,
    /// Remembered flows, 1 to 16,777,216.
    pub flows: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            services: 4096,
            backends: 100_000,
            flows: 1 << 20,
        }
    }
}

/// A directory in a BPF file system, an absolute path; empty: nothing is pinned, and the data path
/// ends with the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pin(pub PathBuf);

impl Default for Pin {
    fn default() -> Pin {
        Pin(PathBuf::from("/sys/fs/bpf/weir"))
    }
}

impl Pin {
    /// The directory, if there is to be one.
    pub fn directory(&self) -> Option<&Path> {
        (!self.0.as_os_str().is_empty()).then_some(&self.0)
    }
}

/// Where the admin API listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Unix socket; an absolute path of at most 98 bytes.
    pub socket: PathBuf,
    /// TCP as well, if set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin {
            socket: PathBuf::from("/run/weir/admin.sock"),
            listen: None,
        }
    }
}

/// What `full-nat` services send from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FullNat {
    /// Addresses of this host that backends see as the source; at most 256, with those of peers.
    pub addresses: Vec<IpAddr>,
    /// Those of other nodes: flows that they have told of (`ha.sync`) go on through this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peer_addresses: Vec<IpAddr>,
    /// First and last source port, which nothing else on this host may use. The default ends
    /// where the kernel's own range (`net.ipv4.ip_local_port_range`) normally begins.
    #[serde(deserialize_with = "ports")]
    pub ports: (u16, u16),
}

impl Default for FullNat {
    fn default() -> FullNat {
        FullNat {
            addresses: Vec::new(),
            peer_addresses: Vec::new(),
            ports: (1024, 32767),
        }
    }
}

/// TOML drops what is too much for a tuple.
fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(u16, u16), D::Error> {
    match Vec::deserialize(deserializer)?[..] {
        [first, last] => Ok((first, last)),
        _ => Err(Error::custom("two numbers: [first, last]")),
    }
}
