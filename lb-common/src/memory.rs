//! The maps in ordinary memory, for tests on the host.

use alloc::{collections::BTreeMap, vec::Vec};
use core::cell::{Cell, RefCell};

use crate::{
    abi::{
        Address, Affinity, AffinityKey, Backend, FirstFragment, Flow, FlowKey, FragmentKey,
        FragmentWay, NatForward, NatReturn, Service, ServiceKey,
    },
    hash::HashKey,
    reason::Reason,
    slot::Slot,
    tables::{Claim, Route, RouteQuery, Tables},
};

/// What the agent writes is public, and what packets write is behind cells.
#[derive(Debug)]
pub struct Memory {
    /// Secret of the flow hash.
    pub hash_key: HashKey,
    /// Bits of [`crate::abi::features`].
    pub features: u32,
    /// The clock.
    pub tick: Cell<u32>,
    /// The CPU, and how many there are.
    pub cpu: (u32, u32),
    /// Services by VIP, and the VIPs' addresses alone.
    pub keys: BTreeMap<ServiceKey, u32>,
    /// Services by index.
    pub services: BTreeMap<u32, Service>,
    /// Rings by their first slot's number; a ring's slots are as many as its services say.
    pub rings: BTreeMap<u32, Vec<Slot>>,
    /// Backends by id.
    pub backends: BTreeMap<u32, Backend>,
    /// Services by a `nat` backend's address and port.
    pub returns: BTreeMap<ServiceKey, u32>,
    /// Source addresses of `full-nat`.
    pub sources: Vec<Address>,
    /// What the kernel's routes say; all other addresses are local.
    pub routes: BTreeMap<Address, Route>,
    /// `full-nat` flows by their client's packets.
    pub nat_forward: RefCell<BTreeMap<FlowKey, NatForward>>,
    /// `full-nat` flows by their backend's packets.
    pub nat_return: RefCell<BTreeMap<FlowKey, NatReturn>>,
    /// Flows of tracked slots.
    pub flows: RefCell<BTreeMap<FlowKey, Flow>>,
    /// Backends that clients keep.
    pub affinities: RefCell<BTreeMap<AffinityKey, Affinity>>,
    /// Where first fragments went.
    pub fragments: RefCell<BTreeMap<FragmentKey, FragmentWay>>,
    /// The first fragment that is being dealt with.
    pub first_fragment: Cell<FirstFragment>,
    /// Connections by backend.
    pub connections: RefCell<BTreeMap<u32, u64>>,
    /// Turns taken: of round robin by service, of ports by backend, and of chance.
    pub turns: RefCell<BTreeMap<(Turn, u32), u32>>,
    /// Dropped packets by service and reason.
    pub dropped: RefCell<BTreeMap<(u32, Reason), u64>>,
    /// Forwarded packets by service and backend.
    pub forwarded: RefCell<BTreeMap<(u32, u32), u64>>,
}

/// What is taken in turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// Round robin's.
    Backend,
    /// `full-nat`'s source ports.
    Port,
    /// Numbers that look random.
    Chance,
}

impl Memory {
    /// Empty maps, on one CPU.
    pub fn new(hash_key: HashKey) -> Self {
        Self {
            hash_key,
            features: 0,
            // Long after the machine was started.
            tick: Cell::new(1000),
            cpu: (0, 1),
            keys: BTreeMap::new(),
            services: BTreeMap::new(),
            rings: BTreeMap::new(),
            backends: BTreeMap::new(),
            returns: BTreeMap::new(),
            sources: Vec::new(),
            routes: BTreeMap::new(),
            nat_forward: RefCell::default(),
            nat_return: RefCell::default(),
            flows: RefCell::default(),
            affinities: RefCell::default(),
            fragments: RefCell::default(),
            first_fragment: Cell::new(FirstFragment::default()),
            connections: RefCell::default(),
            turns: RefCell::default(),
            dropped: RefCell::default(),
            forwarded: RefCell::default(),
        }
    }

    fn take(&self, turn: Turn, of: u32) -> u32 {
        let mut turns = self.turns.borrow_mut();
        let next = turns.entry((turn, of)).or_default();
        let taken = *next;
        *next = next.wrapping_add(1);
        taken
    }
}

fn claim<V: Copy>(flows: &RefCell<BTreeMap<FlowKey, V>>, key: &FlowKey, flow: &V) -> Claim {
    let mut flows = flows.borrow_mut();
    if flows.contains_key(key) {
        return Claim::Taken;
    }
    flows.insert(*key, *flow);
    Claim::Won
}

impl Tables for Memory {
    fn hash_key(&self) -> HashKey {
        self.hash_key
    }

    fn features(&self) -> u32 {
        self.features
    }

    fn tick(&self) -> u32 {
        self.tick.get()
    }

    fn service_index(&self, key: &ServiceKey) -> Option<u32> {
        self.keys.get(key).copied()
    }

    fn is_vip(&self, key: &ServiceKey) -> bool {
        self.keys.contains_key(key)
    }

    fn service(&self, index: u32) -> Option<&Service> {
        self.services.get(&index)
    }

    fn slot(&self, number: u32) -> Option<Slot> {
        let (first, slots) = self.rings.range(..=number).next_back()?;
        slots.get((number - first) as usize).copied()
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(&id)
    }

    fn return_service(&self, key: &ServiceKey) -> Option<u32> {
        self.returns.get(key).copied()
    }

    fn source(&self, index: u32) -> Option<Address> {
        self.sources.get(index as usize).copied()
    }

    fn next_port(&self, backend: u32) -> Option<u32> {
        let (cpu, cpus) = self.cpu;
        let turn = self.take(Turn::Port, backend);
        Some(turn.wrapping_mul(cpus).wrapping_add(cpu))
    }

    fn with_nat_forward<R>(
        &self,
        key: &FlowKey,
        look: impl FnOnce(&mut NatForward) -> R,
    ) -> Option<R> {
        self.nat_forward.borrow_mut().get_mut(key).map(look)
    }

    fn with_nat_return<R>(
        &self,
        key: &FlowKey,
        look: impl FnOnce(&mut NatReturn) -> R,
    ) -> Option<R> {
        self.nat_return.borrow_mut().get_mut(key).map(look)
    }

    fn claim_nat_forward(&self, key: &FlowKey, flow: &NatForward) -> Claim {
        claim(&self.nat_forward, key, flow)
    }

    fn claim_nat_return(&self, key: &FlowKey, flow: &NatReturn) -> Claim {
        claim(&self.nat_return, key, flow)
    }

    fn remove_nat_forward(&self, key: &FlowKey) {
        self.nat_forward.borrow_mut().remove(key);
    }

    fn remove_nat_return(&self, key: &FlowKey) {
        self.nat_return.borrow_mut().remove(key);
    }

    fn with_flow<R>(&self, key: &FlowKey, look: impl FnOnce(&mut Flow) -> R) -> Option<R> {
        self.flows.borrow_mut().get_mut(key).map(look)
    }

    fn remember_flow(&self, key: &FlowKey, flow: &Flow) {
        self.flows.borrow_mut().insert(*key, *flow);
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinities.borrow().get(key).copied()
    }

    fn set_affinity(&self, key: &AffinityKey, affinity: &Affinity) {
        self.affinities.borrow_mut().insert(*key, *affinity);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentWay> {
        self.fragments.borrow().get(key).copied()
    }

    fn with_first_fragment<R>(&self, look: impl FnOnce(&mut FirstFragment) -> R) -> Option<R> {
        let mut first = self.first_fragment.get();
        let result = look(&mut first);
        self.first_fragment.set(first);
        Some(result)
    }

    fn remember_first_fragment(&self) {
        let FirstFragment { key, way } = self.first_fragment.get();
        self.fragments.borrow_mut().insert(key, way);
    }

    fn next_turn(&self, service: u32) -> u32 {
        self.take(Turn::Backend, service)
    }

    fn random(&self) -> u32 {
        self.take(Turn::Chance, 0).wrapping_mul(0x9e37_79b1) >> 7
    }

    fn connections(&self, backend: u32) -> u64 {
        self.connections
            .borrow()
            .get(&backend)
            .copied()
            .unwrap_or(0)
    }

    /// # Panics
    ///
    /// More connections end than were opened.
    fn count_connection(&self, backend: u32, opened: bool) {
        let mut connections = self.connections.borrow_mut();
        let count = connections.entry(backend).or_default();
        *count = match opened {
            true => *count + 1,
            false => count.checked_sub(1).expect("a connection ends once"),
        };
    }

    fn may_send_icmp(&self) -> bool {
        true
    }

    fn route(&self, query: &RouteQuery) -> Route {
        let route = self.routes.get(&query.destination);
        route.copied().unwrap_or(Route::Local)
    }

    fn count_forwarded(&self, service: u32, backend: u32, _: usize, _: bool) {
        let mut forwarded = self.forwarded.borrow_mut();
        *forwarded.entry((service, backend)).or_default() += 1;
    }

    fn count_dropped(&self, service: u32, reason: Reason) {
        let mut dropped = self.dropped.borrow_mut();
        *dropped.entry((service, reason)).or_default() += 1;
    }
}
