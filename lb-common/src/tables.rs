//! The questions that the pipeline asks of the maps.

use crate::{
    abi::{Address, Backend, FlowKey, NatForward, NatReturn, NextHop, Service, ServiceKey},
    hash::HashKey,
    reason::Reason,
    slot::Slot,
};

/// The maps as the pipeline sees them. The XDP program implements it over BPF maps, host
/// tests over collections; entries that packets change are reached through a closure, so
/// that no reference into a map outlives its use.
pub trait Tables {
    /// Secret of the flow hash.
    fn hash_key(&self) -> HashKey;
    /// Bits of [`crate::abi::features`].
    fn features(&self) -> u32;
    /// The kernel's monotonic clock, in units of [`crate::abi::TICK_NS`].
    fn tick(&self) -> u32;

    /// Index of the service with this VIP.
    fn service_index(&self, key: &ServiceKey) -> Option<u32>;
    /// The service at an index.
    fn service(&self, index: u32) -> Option<&Service>;
    /// A slot of a ring.
    fn slot(&self, ring: u32, index: u32) -> Option<Slot>;
    /// A backend by id.
    fn backend(&self, id: u32) -> Option<&Backend>;

    /// Index of the `nat` service that the backend with this address and port serves.
    fn return_service(&self, key: &ServiceKey) -> Option<u32>;

    /// A `full-nat` source address by index.
    fn source(&self, index: u32) -> Option<Address>;
    /// A number that grows by one with each call for the backend on this CPU, and differs
    /// between CPUs at any time.
    fn next_port(&self, backend: u32) -> Option<u32>;
    /// Looks at a `full-nat` flow by its client's packets, and may change it.
    fn with_nat_forward<R>(
        &self,
        key: &FlowKey,
        look: impl FnOnce(&mut NatForward) -> R,
    ) -> Option<R>;
    /// Looks at a `full-nat` flow by its backend's packets, and may change it.
    fn with_nat_return<R>(
        &self,
        key: &FlowKey,
        look: impl FnOnce(&mut NatReturn) -> R,
    ) -> Option<R>;
    /// Adds a flow if its key is free.
    fn claim_nat_forward(&self, key: &FlowKey, flow: &NatForward) -> Claim;
    /// Adds a flow if its key is free.
    fn claim_nat_return(&self, key: &FlowKey, flow: &NatReturn) -> Claim;
    /// Removes a flow, if it is there.
    fn remove_nat_forward(&self, key: &FlowKey);
    /// Removes a flow, if it is there.
    fn remove_nat_return(&self, key: &FlowKey);

    /// Asks the kernel for the way to an address.
    fn route(&self, query: &RouteQuery) -> Route;

    /// Counts a packet forwarded from a client.
    fn count_forwarded(&self, service: u32, backend: u32, bytes: usize, opens: bool);
    /// Counts a dropped packet (service 0: of no service).
    fn count_dropped(&self, service: u32, reason: Reason);
}

/// What became of adding a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Added.
    Won,
    /// Somebody has the key.
    Taken,
    /// The table is full.
    Full,
}

/// A question to the kernel's routing tables; addresses in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuery {
    /// [`crate::abi::IPV4`] or [`crate::abi::IPV6`].
    pub family: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Source address, for source-based rules.
    pub source: Address,
    /// Where to.
    pub destination: Address,
}

/// The kernel's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through this next hop.
    Via {
        /// The way out.
        hop: NextHop,
        /// Whether the destination itself is the next hop, with no gateway between.
        on_link: bool,
    },
    /// The address is this host's, or not one that is forwarded to (multicast).
    Local,
    /// There is none to be had.
    None(Reason),
}
