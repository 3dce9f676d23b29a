//! Which frame reaches an address: interface, MAC addresses and VLAN, read from the kernel's
//! routes, links and neighbours and followed live.
//!
//! The kernel's own neighbour entries are kept fresh here as well: frames that XDP sends do not
//! use them, so without this they would go stale and never be probed again.

mod addresses;
mod burst;
mod follow;
mod kernel;
mod kicks;
mod links;
mod neighbours;
mod requests;
mod resolve;
mod routes;
mod targets;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc};

use anyhow::Context;
use thiserror::Error;
use tokio::sync::mpsc;

use self::{follow::Follower, kernel::Kernel, neighbours::Key, requests::Requests};

/// The frame that carries a packet to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Interface that the frame leaves by; a VLAN device's parent, not the VLAN device.
    pub ifindex: u32,
    /// Source MAC address: that of the interface (or VLAN device) of the route.
    pub source_mac: [u8; 6],
    /// Destination MAC address, always a unicast one.
    pub destination_mac: [u8; 6],
    /// VLAN id of the 802.1Q tag to add.
    pub vlan: Option<u16>,
    /// Largest IP packet in bytes: the lesser of the interface's and the route's.
    pub mtu: u32,
    /// Whether the destination MAC address is that of the address itself, not of a gateway.
    pub on_link: bool,
}

/// Whether frames to an address can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// By this next hop.
    Resolved(NextHop),
    /// Not now.
    Unresolved(Why),
}

/// Why an address has no next hop.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Why {
    /// No route, in the kernel's words.
    #[error("no route: {0}")]
    NoRoute(String),
    /// A blackhole route.
    #[error("the route is a blackhole")]
    Blackhole,
    /// A route of type unreachable.
    #[error("the route says unreachable")]
    Unreachable,
    /// A route of type prohibit.
    #[error("the route says prohibited")]
    Prohibited,
    /// The address is this host's own.
    #[error("the address is this host's own")]
    Local,
    /// A broadcast, multicast or anycast address.
    #[error("not a unicast address")]
    NotUnicast,
    /// The gateway, or the address itself if on link, has not answered ARP or neighbour discovery.
    #[error("no answer from {gateway} on {interface}")]
    NoNeighbour {
        /// Who should have answered.
        gateway: IpAddr,
        /// Name of the interface that it should be reached by.
        interface: String,
    },
    /// The interface, or its VLAN parent, is gone, down or without carrier.
    #[error("interface {interface} is down")]
    LinkDown {
        /// Its name.
        interface: String,
    },
    /// The interface does not carry Ethernet frames.
    #[error("interface {interface} is not Ethernet")]
    NotEthernet {
        /// Its name.
        interface: String,
    },
    /// The way adds a header that the data path does not: MPLS, SRv6, 802.1ad or stacked VLANs.
    #[error("the way by {interface} adds an encapsulation other than one 802.1Q tag")]
    Encapsulated {
        /// Name of the interface.
        interface: String,
    },
}

/// What is known of some addresses now; `None` of those that are no targets any more.
pub type Told = Vec<(IpAddr, Option<Resolution>)>;

/// Addresses that become targets, or are none any more.
pub type Wanted = Vec<(IpAddr, bool)>;

/// What has changed.
#[derive(Debug)]
pub struct News {
    /// Targets that are resolved for the first time, or otherwise than before.
    pub told: Told,
    /// Grows by one (wrapping) whenever routes, rules, links or neighbours changed so that any
    /// cached route may be wrong, also one to no target.
    pub epoch: u32,
}

/// Follows the kernel; ends when nobody has [`Self::news`] any more.
pub struct Resolver {
    /// What has changed, in order.
    pub news: mpsc::UnboundedReceiver<News>,
    /// How to ask for more.
    pub asker: Asker,
}

/// A way to have the kernel resolve neighbours.
#[derive(Clone)]
pub struct Asker(Arc<Requests>);

impl Asker {
    /// Asks the kernel to resolve a neighbour now. Never blocks; repetitions within a second, and
    /// what exceeds the rate that a neighbour table bears, are dropped.
    pub fn request(&self, address: IpAddr, ifindex: u32) {
        self.0.add(Key { ifindex, address });
    }
}

/// Starts to resolve what is `wanted` in the calling thread's network namespace, on the current
/// tokio runtime. Once its sender is gone, the targets stay as they are.
///
/// # Errors
/// If the kernel refuses a netlink socket. Later errors are logged and lead to a new socket.
pub fn spawn(wanted: mpsc::UnboundedReceiver<Wanted>) -> anyhow::Result<Resolver> {
    let kernel = Kernel::connect().context("cannot follow the kernel's routes")?;
    let requests = Arc::new(Requests::default());
    let (publisher, news) = mpsc::unbounded_channel();
    tokio::spawn(Follower::new(wanted, requests.clone(), publisher).run(kernel));
    let asker = Asker(requests);
    Ok(Resolver { news, asker })
}
