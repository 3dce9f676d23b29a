//! The layout of every map that the XDP program and the agent share.
//!
//! Integers and arrays only, no padding, sizes asserted. "Network order" words hold the
//! bytes as they stand in the packet, so neither side swaps them on the fast path.

use core::mem::{align_of, size_of};

/// Counts changes of what any map's keys and values mean: an agent takes over what an earlier one
/// has left in the kernel only where both know the same. To be raised with every such change, also
/// where sizes stay.
pub const LAYOUT: u64 = 3;

/// Types that may be a map's key or value.
///
/// # Safety
///
/// Implementors have no padding and every bit pattern is a valid value.
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($type:ty: $size:literal),+ $(,)?) => {$(
        const _: () = assert!(size_of::<$type>() == $size);
        // SAFETY: the size asserted above is the sum of the fields' sizes, so there is no
        // padding, and the fields are integers or arrays of them.
        unsafe impl Plain for $type {}
    )+};
}

plain!(
    u32: 4,
    u64: 8,
    Address: 16,
    ServiceKey: 24,
    Front: 32,
    Service: 64,
    Backend: 64,
    FlowKey: 40,
    NatForward: 16,
    NatReturn: 40,
    Settings: 16,
    Counters: 24,
    NeighbourRequest: 24,
    CachedRoute: 64,
    Flow: 16,
    AffinityKey: 24,
    Affinity: 8,
    FragmentKey: 40,
    FragmentWay: 72,
    FirstFragment: 112,
    Told: 56,
);

/// An IPv4 or IPv6 address, its bytes in memory as they stand in the packet: IPv4 fills the
/// first four and leaves the rest zero. Two words, since BPF's registers and spills are 64
/// bits wide.
pub type Address = [u64; 2];

/// The value of [`ServiceKey::family`] and its like for IPv4.
pub const IPV4: u8 = 4;
/// The value of [`ServiceKey::family`] and its like for IPv6.
pub const IPV6: u8 = 6;

/// `(address, port, protocol)`: the key of the maps `SERVICES_BY_KEY` (a service's VIP) and
/// `RETURNS` (a `nat` backend, as the source of return traffic).
///
/// With `port` and `protocol` zero it marks, in `SERVICES_BY_KEY`, that some service has the
/// address: what cannot be matched to a port (fragments) is recognised by it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Address, network order.
    pub address: Address,
    /// Port, network order.
    pub port: u16,
    /// IP protocol number: 6 or 17.
    pub protocol: u8,
    /// [`IPV4`] or [`IPV6`].
    pub family: u8,
    /// Zero.
    pub reserved: u32,
}

/// What stands in an array in front of `SERVICES_BY_KEY` or `RETURNS`: see [`crate::front`].
/// The agent writes the address while the word does not name it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Front {
    /// The key's address.
    pub address: Address,
    /// The rest of the key in the lower half, the map's value in the upper; or
    /// [`crate::front::ABSENT`] or [`crate::front::SHARED`].
    pub word: u64,
    /// Zero.
    pub reserved: u64,
}

/// How a service's packets are forwarded: the values of [`Service::mode`].
pub mod mode {
    /// Destination rewritten; backends route through Weir.
    pub const NAT: u8 = 1;
    /// Destination and source rewritten; stateful.
    pub const FULL_NAT: u8 = 2;
    /// Destination MAC rewritten; backends answer directly.
    pub const DSR: u8 = 3;
}

/// A service: the value of the array `SERVICES`, by service index. Index 0 is never used,
/// so that its counters can hold what concerns no service.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// See [`ring_word`]: one aligned word, so that a packet never combines one ring with
    /// another's size. 0: no ring, but one slot that is nobody's.
    pub ring: u64,
    /// The VIP, network order.
    pub address: Address,
    /// The VIP's port, network order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// [`IPV4`] or [`IPV6`].
    pub family: u8,
    /// One of [`mode`].
    pub mode: u8,
    /// One of [`algorithm`].
    pub algorithm: u8,
    /// Bits of [`service_flags`].
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
    /// `full-nat`: index in `SOURCES` of the first source address.
    pub source_first: u32,
    /// `full-nat`: number of source addresses; 0 in other modes.
    pub source_count: u32,
    /// `full-nat`: first source port, host order.
    pub port_first: u16,
    /// `full-nat`: last source port, host order, inclusive.
    pub port_last: u16,
    /// Idle time after which a flow may be forgotten, in [`TICK_NS`] units.
    pub idle_ticks: u32,
    /// Which bits of the ports' word are hashed: all, or none for affinity by source.
    pub hashed_ports: u32,
    /// Time for which a client keeps its backend, in [`TICK_NS`] units; 0: no affinity.
    pub affinity_ticks: u32,
    /// [`Service::hashed_ports`] as it was when the flows that nobody remembers began: until
    /// all have spoken after a change of the hash, they are found by the old one.
    pub base_hashed_ports: u32,
    /// Zero.
    pub reserved2: u32,
}

/// How a new flow's backend is chosen: the values of [`Service::algorithm`].
pub mod algorithm {
    /// The owner of the flow's slot.
    pub const HASH: u8 = 0;
    /// The owners of the slots in turn.
    pub const ROUND_ROBIN: u8 = 1;
    /// The owner of a slot by chance.
    pub const RANDOM: u8 = 2;
    /// Of two slots' owners the one with fewer connections for its weight.
    pub const LEAST_CONNECTIONS: u8 = 3;
}

/// Bits of [`Service::flags`].
pub mod service_flags {
    /// Connections of a dead backend go on to another, instead of being reset.
    pub const DIE_SILENTLY: u8 = 1;
    /// What no backend is left for is dropped, instead of being refused.
    pub const REFUSE_SILENTLY: u8 = 2;
}

/// Slots are in arrays of `1 << LOG2_SEGMENT`, the largest ring's: slot `n` of all is in the
/// array at `n >> LOG2_SEGMENT` of `SEGMENTS`.
pub const LOG2_SEGMENT: u32 = 16;
/// Slots in a segment.
pub const SEGMENT_SLOTS: u32 = 1 << LOG2_SEGMENT;

/// [`Service::ring`] of a ring of `1 << log2_slots` slots from the slot `first` of all on,
/// which is a multiple of their number.
pub const fn ring_word(first: u32, log2_slots: u32) -> u64 {
    ((first as u64) << 32) | ((1u64 << log2_slots) - 1)
}

/// The first slot and the slot mask of a [`Service::ring`].
pub const fn ring_of(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// Tables that are part of the program: the entries that they may have at most. Each may have the
/// 4 MiB that an array's value may have before Linux 6.12.
pub mod direct {
    use super::{Backend, Front, Service};

    /// Bytes of each at most.
    pub const BYTES: usize = 4 << 20;

    /// Of `SERVICES_FRONT`.
    pub const SERVICES_FRONT: u32 = (BYTES / size_of::<Front>()) as u32;
    /// Of `SERVICES`.
    pub const SERVICES: u32 = (BYTES / size_of::<Service>()) as u32;
    /// Of `SLOTS`: the first of all rings' slots.
    pub const SLOTS: u32 = (BYTES / size_of::<u64>()) as u32;
    /// Of `BACKENDS`: the first ids.
    pub const BACKENDS: u32 = (BYTES / size_of::<Backend>()) as u32;
}

/// A backend: the value of the arrays `BACKENDS`, by backend id, and `MORE_BACKENDS`. Id 0 means
/// "none".
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where its frames go.
    pub next_hop: NextHop,
    /// Address, network order.
    pub address: Address,
    /// Port, network order. Ignored by `dsr`.
    pub port: u16,
    /// [`IPV4`] or [`IPV6`].
    pub family: u8,
    /// Bits of [`backend_flags`].
    pub flags: u8,
    /// Its share of new flows, for comparing loads; at least 1 where it may be given any.
    pub weight: u32,
    /// By the first two a later agent knows the backend again, which the program does not look
    /// at; the others are zero.
    pub reserved: [u32; 4],
}

/// Bits of [`Backend::flags`].
pub mod backend_flags {
    /// May be given new flows (it is in some ring).
    pub const ALIVE: u8 = 1;
    /// Its next hop is a gateway.
    pub const ROUTED: u8 = 2;
    /// It has failed: its flows are lost.
    pub const DEAD: u8 = 4;
}

/// The Ethernet side of a way out. Its words are written one at a time, each atomically.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NextHop {
    /// Destination MAC (bits 0 to 47, first byte lowest) and VLAN id (bits 48 to 63, host
    /// order, 0: untagged). 0: not resolved, ask the kernel (`bpf_fib_lookup`).
    pub destination: u64,
    /// Source MAC, as in `destination`; the upper bits are zero.
    pub source: u64,
    /// Interface to send on.
    pub ifindex: u32,
    /// Largest packet that fits, from the IP header on, in bytes; 0: not known.
    pub mtu: u16,
    /// The interface's index in `DEVICES`.
    pub device: u16,
}

/// Interfaces that frames may leave by: the entries of `DEVICES`.
pub const MAX_DEVICES: u16 = 256;

/// The first 48 bits of a [`NextHop`] word.
pub const fn mac_word(mac: [u8; 6]) -> u64 {
    u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0])
}

/// A flow as a packet of it looks on the wire: the key of `NAT_FORWARD` (client to VIP) and
/// of `NAT_RETURN` (backend to source address).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Source address, network order.
    pub source: Address,
    /// Destination address, network order.
    pub destination: Address,
    /// Source port, network order.
    pub source_port: u16,
    /// Destination port, network order.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// [`IPV4`] or [`IPV6`].
    pub family: u8,
    /// Zero.
    pub reserved: u16,
}

/// Nanoseconds of the kernel's monotonic clock in one tick of a flow's `last_seen`: a power
/// of two near a second, so that a busy flow writes its entry once a second.
pub const TICK_NS: u64 = 1 << 30;

/// Bits of [`NatReturn::state`].
pub mod nat_state {
    /// The client sent a FIN.
    pub const CLIENT_FIN: u8 = 1;
    /// The backend sent a FIN.
    pub const BACKEND_FIN: u8 = 2;
    /// One of them sent a RST, and its sender has not spoken since.
    pub const RST: u8 = 4;
    /// It is in its backend's count of connections.
    pub const COUNTED: u8 = 8;
}

/// A `full-nat` flow, as its client's packets find it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatForward {
    /// Backend id.
    pub backend: u32,
    /// Index in `SOURCES`.
    pub source_index: u32,
    /// Tick at which the client's packets last marked the flow's [`NatReturn`] as alive.
    pub last_seen: u32,
    /// Source port towards the backend, network order.
    pub source_port: u16,
    /// Zero.
    pub reserved: u16,
}

/// A `full-nat` flow, as its backend's packets find it. It alone says whether the flow lives
/// and holds its source endpoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatReturn {
    /// The client's address, network order.
    pub client: Address,
    /// Service index.
    pub service: u32,
    /// Backend id.
    pub backend: u32,
    /// Tick of the last packet, in either direction.
    pub last_seen: u32,
    /// Tick at which the flow was made.
    pub created: u32,
    /// The client's port, network order.
    pub client_port: u16,
    /// Bits of [`nat_state`].
    pub state: u8,
    /// Zero.
    pub reserved: u8,
    /// Index in `SOURCES` of the source address.
    pub source_index: u32,
}

/// A remembered flow of a tracked slot: the value of `FLOWS`, whose key is the flow as its
/// client's packets have it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Backend id.
    pub backend: u32,
    /// Service index.
    pub service: u32,
    /// Tick of the client's last packet.
    pub last_seen: u32,
    /// Bits of [`flow_state`].
    pub state: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Bits of [`Flow::state`].
pub mod flow_state {
    /// Nothing but SYNs was seen of it.
    pub const OPENING: u8 = 1;
    /// The client sent a FIN or RST.
    pub const CLOSED: u8 = 2;
    /// It is in its backend's count of connections.
    pub const COUNTED: u8 = 4;
}

/// A client of a service that keeps clients with their backends: the key of `AFFINITIES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AffinityKey {
    /// The client's address, network order.
    pub client: Address,
    /// Service index.
    pub service: u32,
    /// [`IPV4`] or [`IPV6`].
    pub family: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// The backend that a client keeps: the value of `AFFINITIES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Backend id.
    pub backend: u32,
    /// Tick of the client's last new flow.
    pub last_seen: u32,
}

/// What all fragments of a packet have: the key of `FRAGMENTS` (RFC 791, RFC 8200).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FragmentKey {
    /// Source address, network order.
    pub source: Address,
    /// Destination address, network order.
    pub destination: Address,
    /// Identification, as it stands in the packet; IPv4's in the lower half.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// [`IPV4`] or [`IPV6`].
    pub family: u8,
    /// Zero.
    pub reserved: u16,
}

/// Where the first fragment of a packet went, for the others: the value of `FRAGMENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FragmentWay {
    /// The way out.
    pub hop: NextHop,
    /// Source address that it was given, or had, network order.
    pub source: Address,
    /// Destination address likewise.
    pub destination: Address,
    /// Service index.
    pub service: u32,
    /// Backend id; 0: it is from a backend.
    pub backend: u32,
    /// Tick at which it came.
    pub seen: u32,
    /// Zero.
    pub reserved: u32,
}

/// A first fragment, between the programs that deal with it: the single value of the per-CPU
/// array `FIRST_FRAGMENT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FirstFragment {
    /// What it came as.
    pub key: FragmentKey,
    /// Where it went.
    pub way: FragmentWay,
}

/// What [`Told::kind`] may be.
pub mod told {
    /// A flow was put into `FLOWS`.
    pub const FLOW: u8 = 1;
    /// A flow was put into `NAT_FORWARD` and `NAT_RETURN`.
    pub const TRANSLATION: u8 = 2;
    /// A client's backend was put into `AFFINITIES`.
    pub const AFFINITY: u8 = 3;
}

/// Tells the agent, through the ring buffer `NEWS`, what was remembered, for other nodes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The flow as its client's packets have it; of an affinity the client and the family.
    pub key: FlowKey,
    /// Backend id.
    pub backend: u32,
    /// Of a translation its source's index in `SOURCES`, else the service's index.
    pub index: u32,
    /// Of a translation its source port, network order; else 0.
    pub source_port: u16,
    /// One of [`told`].
    pub kind: u8,
    /// Bits of [`flow_state`]; 0 of other kinds.
    pub state: u8,
    /// Zero.
    pub reserved: u32,
}

/// What applies to every packet: the single value of the array `SETTINGS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Settings {
    /// Bits of [`features`].
    pub features: u32,
    /// Counts changes of the kernel's routes, neighbours and links: cached ways back of an
    /// older epoch are looked up again.
    pub route_epoch: u32,
    /// Zero.
    pub reserved: [u32; 2],
}

/// Bits of [`Settings::features`]: what no service uses costs no packet a lookup.
pub mod features {
    /// Some service is `nat`: sources are looked up in `RETURNS`.
    pub const NAT: u32 = 1;
    /// Some service is `full-nat`: packets are looked up in `NAT_RETURN`.
    pub const FULL_NAT: u32 = 2;
}

/// Per-CPU counters of a service (`SERVICE_COUNTERS`, by index) or a backend
/// (`BACKEND_COUNTERS`, by id).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets forwarded from clients.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
    /// Of `packets`, those that open a connection: TCP SYN without ACK.
    pub connections: u64,
}

const _: () = assert!(align_of::<Backend>() == 64, "a backend is one cache line");

/// The value of `EGRESS`, by interface index: the interface to send on for it (bits 0 to 31),
/// the VLAN id (bits 32 to 47; 0: untagged) and the interface's index in `DEVICES` (the
/// others). A VLAN device's frames go out of its parent.
pub const fn egress(ifindex: u32, vlan: u16, device: u16) -> u64 {
    ifindex as u64 | ((vlan as u64) << 32) | ((device as u64) << 48)
}

/// Asks the agent, through the ring buffer `NEIGHBOUR_REQUESTS`, to have the kernel resolve
/// an address that a packet is waiting for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourRequest {
    /// The next hop's address, network order.
    pub address: Address,
    /// Interface it is on.
    pub ifindex: u32,
    /// [`IPV4`] or [`IPV6`].
    pub family: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// A way back that the kernel was asked for: the value of the per-CPU array `ROUTE_CACHE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachedRoute {
    /// The way out.
    pub hop: NextHop,
    /// Where to, network order.
    pub destination: Address,
    /// [`Settings::route_epoch`] when it was looked up.
    pub epoch: u32,
    /// Tick when it was looked up.
    pub tick: u32,
    /// [`IPV4`] or [`IPV6`]; 0: empty.
    pub family: u8,
    /// 1: the destination is this host's own; `hop` means nothing.
    pub local: u8,
    /// 1: the destination itself is the next hop.
    pub on_link: u8,
    /// Zero.
    pub reserved: [u8; 13],
}

/// Indexes in `PROGRAMS`.
pub mod program {
    /// The program `weir`.
    pub const STEER: u32 = 0;
    /// The program `weir_open`.
    pub const OPEN: u32 = 1;
    /// The program `weir_answer`.
    pub const ANSWER: u32 = 2;
    /// The program `weir_aside`.
    pub const ASIDE: u32 = 3;
    /// The program `weir_icmp`.
    pub const ICMP: u32 = 4;
    /// The program `weir_first`.
    pub const FIRST: u32 = 5;
}

/// What the benchmarks' programs share with their driver.
pub mod bench {
    use super::Plain;

    /// Bytes of a packet that are written anew: enough for Ethernet, IPv6 and TCP.
    pub const TEMPLATE: usize = 80;

    /// Which packets are fed to the program under test.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Feed {
        /// The packet, but for the last four bytes of an address, and a port.
        pub template: [u8; TEMPLATE],
        /// Number of flows less one; that number is a power of two.
        pub mask: u32,
        /// The address's last four bytes in the first flow, host order.
        pub address: u32,
        /// Where they are in the packet; below 64.
        pub address_at: u32,
        /// Where the port is; below 64.
        pub port_at: u32,
        /// A flow's number is cut in two: its low bits and the others.
        pub low_bits: u32,
        /// Mask of the low bits.
        pub low_mask: u32,
        /// What the address grows by with the high part.
        pub high_step: u32,
        /// What the address grows by with the low part.
        pub low_step: u32,
        /// The first flow's port, host order; it grows with one of the parts.
        pub port: u32,
        /// 1: with the high part, 0: with the low part.
        pub port_from_high: u32,
        /// Index of the program under test.
        pub target: u32,
        /// Zero.
        pub reserved: u32,
    }

    const _: () = assert!(size_of::<Feed>() == TEMPLATE + 48);
    // SAFETY: the size asserted above is the sum of the fields' sizes, and they are integers.
    unsafe impl Plain for Feed {}
}
