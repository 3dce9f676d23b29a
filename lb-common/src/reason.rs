//! Why a packet was dropped.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal;)+) => {
        /// Why a packet was dropped. The numbers are stable: counters are indexed by them.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[Reason] = &[$(Reason::$variant,)+];

            /// The name in the API, the metrics and the logs.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)+ }
            }

            /// What it means, for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Reason::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

reasons! {
    /// The packet ends before its headers do, or its length fields contradict each other.
    Malformed = 0, "malformed";
    /// A fragment to a service's address whose packet's first, which has the ports, was not seen.
    Fragment = 1, "fragment";
    /// An IPv6 extension header that is not looked behind, to a service's address.
    ExtensionHeader = 2, "extension_header";
    /// No backend of the service may take the packet.
    NoBackend = 3, "no_backend";
    /// The TTL or hop limit would reach zero here.
    TtlExceeded = 4, "ttl_exceeded";
    /// The kernel has no route to where the packet must go.
    NoRoute = 5, "no_route";
    /// The next hop's MAC address is not known (yet); the kernel was asked to resolve it.
    NoNeighbour = 6, "no_neighbour";
    /// The way out is an interface that Weir was not given.
    EgressUnknown = 7, "egress_unknown";
    /// The packet is larger than the MTU of the way out.
    TooBig = 8, "too_big";
    /// `full-nat`: a packet that opens no connection, of a flow that is not known.
    UnknownFlow = 9, "unknown_flow";
    /// `full-nat`: no source port was free within the search limit.
    PortsExhausted = 10, "ports_exhausted";
    /// `full-nat`: the flow table is full.
    FlowTableFull = 11, "flow_table_full";
    /// The frame could not be resized for its VLAN tag.
    Resize = 12, "resize";
    /// The kernel may not forward on the interface: its `forwarding` sysctl is 0.
    ForwardingDisabled = 13, "forwarding_disabled";
    /// The maps contradict each other for a moment, or an index is out of range.
    Inconsistent = 14, "inconsistent";
    /// `dsr`: the backend is behind a gateway, which would send the VIP's packet back.
    NotOnLink = 15, "not_on_link";
    /// The packet's connection was lost with its backend.
    BackendDead = 16, "backend_dead";
}

/// Counters a service has in `DROPS`: a power of two above the number of reasons, so that
/// the index is a shift and an or.
pub const REASON_SLOTS: u32 = 32;

const _: () = assert!(Reason::ALL.len() <= REASON_SLOTS as usize);

/// Index in `DROPS` of a reason's counter for a service (index 0: no service).
pub const fn drop_index(service: u32, reason: Reason) -> u32 {
    service * REASON_SLOTS + reason as u32
}
