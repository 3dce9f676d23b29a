//! What a lab is to look like.

use anyhow::{Result, ensure};

/// How many namespaces of each kind there are, and how they are joined.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the client, the balancer and the backends are joined.
    pub wiring: Wiring,
    /// The number of backends, 1 to 250.
    pub backends: u8,
    /// The number of VIPs, each an IPv4 and an IPv6 address, 1 to 250.
    pub vips: u8,
    /// Whether the backends have the VIPs on lo, without answering ARP for them, as DSR and
    /// tunnels need it. On a segment, what they send from a VIP goes straight to the client.
    pub backends_hold_vips: bool,
}

/// How the client, the balancer and the backends are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// A link of their own, and a subnet, for the client and for every backend, each to a NIC
    /// of the balancer, which is everyone's default route.
    Routed,
    /// All on one Ethernet segment, the balancer with one NIC. The client and the backends are
    /// in two subnets, and the balancer is the router between them.
    Segment,
    /// As on a segment, with two balancers, which have addresses of their own: those that one
    /// balancer would have, and the VIPs, are theirs to share. The client looks for VIPs on the
    /// segment.
    Pair,
    /// As a pair, on two segments: the client on one, the backends on the other, and each
    /// balancer with a NIC at both.
    PairBetween,
    /// Three balancers on a segment with the backends and a router, which has the client on
    /// another link, and forwards by flow where it has several ways. It knows no way to the
    /// VIPs. The backends' default route is the address that a single balancer would have, which
    /// is the balancers' to share.
    Anycast,
}

impl Wiring {
    /// Whether there are two balancers.
    pub(crate) fn is_pair(self) -> bool {
        matches!(self, Wiring::Pair | Wiring::PairBetween)
    }
}

impl Default for Plan {
    /// Three backends, routed, one VIP.
    fn default() -> Self {
        Self {
            wiring: Wiring::Routed,
            backends: 3,
            vips: 1,
            backends_hold_vips: false,
        }
    }
}

impl Plan {
    pub(crate) fn validate(&self) -> Result<()> {
        ensure!(
            (1..=250).contains(&self.backends) && (1..=250).contains(&self.vips),
            "a lab has 1 to 250 backends and 1 to 250 VIPs, not {} and {}",
            self.backends,
            self.vips
        );
        Ok(())
    }
}
