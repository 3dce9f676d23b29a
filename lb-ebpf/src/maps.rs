//! Every map. The sizes here are defaults: the agent's loader sets them from its limits.
//! `lb_common::abi` says what keys and values mean.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{
        Array, ArrayOfMaps, DevMap, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf,
    },
    macros::btf_map,
};
use lb_common::abi::{
    Address, Affinity, AffinityKey, Backend, CachedRoute, Counters, FirstFragment, Flow, FlowKey,
    FragmentKey, FragmentWay, Front, MAX_DEVICES, NatForward, NatReturn, NeighbourRequest,
    SEGMENT_SLOTS, ServiceKey, Settings, Told,
};

/// The agent writes it in place.
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
/// Memory is taken as backends come.
const GROWING: usize = BPF_F_NO_PREALLOC as usize;

/// What applies to every packet; one entry.
#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 1, MMAPABLE> = Array::new();

/// VIP to service index.
#[btf_map]
pub(crate) static SERVICES_BY_KEY: HashMap<ServiceKey, u32, 8192> = HashMap::new();

/// The slots of all rings but the first, by segment.
#[btf_map]
pub(crate) static SEGMENTS: ArrayOfMaps<Array<u64, { SEGMENT_SLOTS as usize }, MMAPABLE>, 8192> =
    ArrayOfMaps::new();

/// Backends by id, but for the first: from [`lb_common::abi::direct::BACKENDS`] on.
#[btf_map]
pub(crate) static MORE_BACKENDS: Array<Backend, 65_536, MMAPABLE> = Array::new();

/// A `nat` backend's address and port to its service's index.
#[btf_map]
pub(crate) static RETURNS: HashMap<ServiceKey, u32, 131_072, GROWING> = HashMap::new();

/// In front of [`RETURNS`].
#[btf_map]
pub(crate) static RETURNS_FRONT: Array<Front, 262_144, MMAPABLE> = Array::new();

/// Source addresses of `full-nat`, by source index.
#[btf_map]
pub(crate) static SOURCES: Array<Address, 256> = Array::new();

/// Turns at source endpoints taken so far, by backend id.
#[btf_map]
pub(crate) static PORT_TURNS: PerCpuArray<u32, 131_072> = PerCpuArray::new();

/// `full-nat` flows by their client's packets. An entry that is there already is had faster than
/// one for which the kernel must find memory first.
#[btf_map]
pub(crate) static NAT_FORWARD: HashMap<FlowKey, NatForward, 1_048_576> = HashMap::new();

/// `full-nat` flows by their backend's packets.
#[btf_map]
pub(crate) static NAT_RETURN: HashMap<FlowKey, NatReturn, 1_048_576> = HashMap::new();

/// Remembered flows of tracked slots, by their client's packets.
#[btf_map]
pub(crate) static FLOWS: LruHashMap<FlowKey, Flow, 1_048_576> = LruHashMap::new();

/// How often a flow was put into `FLOWS` that was not there: with the number of those that
/// are there and of those that the agent removed, it tells how many were evicted.
#[btf_map]
pub(crate) static FLOWS_REMEMBERED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Backends that clients keep.
#[btf_map]
pub(crate) static AFFINITIES: LruHashMap<AffinityKey, Affinity, 262_144> = LruHashMap::new();

/// Where first fragments went, for the others of their packets.
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentWay, 8192> = LruHashMap::new();

/// The first fragment that this CPU deals with: two programs do, and neither has room for it.
#[btf_map]
pub(crate) static FIRST_FRAGMENT: PerCpuArray<FirstFragment, 1> = PerCpuArray::new();

/// Turns of round robin so far, by service index.
#[btf_map]
pub(crate) static TURNS: Array<u64, 4097> = Array::new();

/// Connections of backends of least-connections services, by backend id.
#[btf_map]
pub(crate) static CONNECTIONS: Array<u64, 131_072, MMAPABLE> = Array::new();

/// ICMP errors sent: the tick in the upper half, and how many in it in the lower.
#[btf_map]
pub(crate) static ICMP_SENT: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Interfaces that frames may leave by: see `lb_common::abi::egress`.
#[btf_map]
pub(crate) static EGRESS: HashMap<u32, u64, 256> = HashMap::new();

/// Interfaces for redirecting, by their place in the agent's list: an array is found faster
/// than a hash map of interface indexes.
#[btf_map]
pub(crate) static DEVICES: DevMap<{ MAX_DEVICES as usize }> = DevMap::new();

/// Ways that the kernel was asked for lately.
#[btf_map]
pub(crate) static ROUTE_CACHE: PerCpuArray<CachedRoute, { crate::route::CACHE_ENTRIES as usize }> =
    PerCpuArray::new();

/// Addresses that packets wait for, for the agent.
#[btf_map]
pub(crate) static NEIGHBOUR_REQUESTS: RingBuf<NeighbourRequest, 65_536> = RingBuf::new();

/// What was remembered, for other nodes: see [`crate::settings::TELL`].
#[btf_map]
pub(crate) static NEWS: RingBuf<Told, 4_194_304> = RingBuf::new();

/// How much was remembered and did not fit into [`NEWS`].
#[btf_map]
pub(crate) static UNTOLD: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Counters of services by index.
#[btf_map]
pub(crate) static SERVICE_COUNTERS: PerCpuArray<Counters, 4097> = PerCpuArray::new();

/// Counters of backends by id.
#[btf_map]
pub(crate) static BACKEND_COUNTERS: PerCpuArray<Counters, 131_072> = PerCpuArray::new();

/// Dropped packets by service and reason: see `lb_common::reason::drop_index`.
#[btf_map]
pub(crate) static DROPS: PerCpuArray<u64, 131_104> = PerCpuArray::new();

/// The programs, by `lb_common::abi::program`, to hand packets on to.
#[btf_map]
pub(crate) static PROGRAMS: ProgramArray<6> = ProgramArray::new();
