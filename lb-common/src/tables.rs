//! The questions that the pipeline asks of the maps.

use crate::{
    abi::{
        Address, Affinity, AffinityKey, Backend, FirstFragment, Flow, FlowKey, FragmentKey,
        FragmentWay, NatForward, NatReturn, NextHop, Service, ServiceKey,
    },
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
    /// Whether some service has this address, from [`ServiceKey::any_port`].
    fn is_vip(&self, key: &ServiceKey) -> bool;
    /// The service at an index.
    fn service(&self, index: u32) -> Option<&Service>;
    /// A slot, by its number among those of all rings.
    fn slot(&self, number: u32) -> Option<Slot>;
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

    /// Looks at a remembered flow of a tracked slot, and may change it.
    fn with_flow<R>(&self, key: &FlowKey, look: impl FnOnce(&mut Flow) -> R) -> Option<R>;
    /// Remembers a flow, in the place of one that has its key; the one unused for longest may
    /// be forgotten for it.
    fn remember_flow(&self, key: &FlowKey, flow: &Flow);
    /// The backend that a client keeps.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// Has a client keep a backend.
    fn set_affinity(&self, key: &AffinityKey, affinity: &Affinity);
    /// Where the first of a packet's fragments went.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentWay>;
    /// This CPU's first fragment that is being dealt with.
    fn with_first_fragment<R>(&self, look: impl FnOnce(&mut FirstFragment) -> R) -> Option<R>;
    /// Remembers where it went; the packet's that came longest ago may be forgotten for it.
    fn remember_first_fragment(&self);
    /// A number that grows by one with each call for the service.
    fn next_turn(&self, service: u32) -> u32;
    /// Any number.
    fn random(&self) -> u32;
    /// Connections that a backend of a least-connections service has.
    fn connections(&self, backend: u32) -> u64;
    /// Counts a connection that was opened or has ended.
    fn count_connection(&self, backend: u32, opened: bool);
    /// Whether an ICMP error may be sent now: they are limited, as Linux limits its own.
    fn may_send_icmp(&self) -> bool;

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
    /// The address is this host's, or not one that is forwarded to: multicast, or one that no
    /// route leads to.
    Local,
    /// There is none to be had.
    None(Reason),
}
