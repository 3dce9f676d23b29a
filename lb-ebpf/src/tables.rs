//! The pipeline's questions, answered from the maps.

use core::arch::asm;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns},
    programs::XdpContext,
};
use lb_common::{
    abi::{
        Address, Affinity, AffinityKey, Backend, Counters, FirstFragment, Flow, FlowKey,
        FragmentKey, FragmentWay, LOG2_SEGMENT, NatForward, NatReturn, SEGMENT_SLOTS, Service,
        ServiceKey, TICK_NS,
        direct::{BACKENDS, SLOTS},
    },
    front::{self, Found},
    hash::HashKey,
    reason::{Reason, drop_index},
    slot::Slot,
    tables::{Claim, Route, RouteQuery, Tables},
};

use crate::{direct, maps, news, route, settings};

/// ICMP errors that a CPU sends in a tick, about a second, at most.
const ICMP_PER_TICK: u64 = 500;

/// -EEXIST, from a claim of a key that is there.
const EXISTS: i32 = -17;

/// The maps, as a packet sees them.
pub(crate) struct KernelTables<'a> {
    context: &'a XdpContext,
}

impl<'a> KernelTables<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a XdpContext) -> Self {
        Self { context }
    }
}

/// The hash maps of endpoints.
#[derive(Clone, Copy)]
enum Map {
    Services,
    Returns,
}

/// What a hash map has for a key.
#[inline(always)]
fn ask(map: Map, key: &ServiceKey) -> Option<u32> {
    let [first, second] = key.address;
    let found = ask_by_words(map, first, second, key.rest());
    (found != NOTHING).then_some(found as u32)
}

/// What [`ask_by_words`] finds where there is nothing.
const NOTHING: u64 = u64::MAX;

/// A function of its own, given words, so that keys stand in memory only where they must.
#[inline(never)]
fn ask_by_words(map: Map, first: u64, second: u64, rest: u32) -> u64 {
    let key = ServiceKey::new([first, second], rest);
    // SAFETY: one aligned word, copied at once.
    let found = unsafe {
        match map {
            Map::Services => maps::SERVICES_BY_KEY.get(key),
            Map::Returns => maps::RETURNS.get(key),
        }
    };
    found.map_or(NOTHING, |value| u64::from(*value))
}

#[inline(always)]
fn claimed(result: Result<(), i32>) -> Claim {
    match result {
        Ok(()) => Claim::Won,
        Err(EXISTS) => Claim::Taken,
        Err(_) => Claim::Full,
    }
}

#[inline(always)]
fn count(counters: Option<*mut Counters>, bytes: usize, opens: bool) {
    let Some(counters) = counters else { return };
    // SAFETY: a live entry of this CPU, and nothing interrupts the program on it.
    unsafe {
        (*counters).packets += 1;
        (*counters).bytes += bytes as u64;
        if opens {
            (*counters).connections += 1;
        }
    }
}

/// The same number, which is below [`SLOTS`], as the verifier sees it.
#[inline(always)]
fn below_slots(number: u32) -> u64 {
    let mut number = u64::from(number);
    // By an instruction of its own: the compiler would leave it out.
    // SAFETY: touches no memory.
    unsafe {
        asm!("{0} &= {1}", inout(reg) number, const SLOTS - 1, options(pure, nomem, nostack));
    }
    number
}

/// # Safety
///
/// `counter` is a live, aligned word of a map.
#[inline(always)]
unsafe fn add(counter: *mut u64, by: u64) {
    // The target is said to have no atomic read-modify-write; the instruction is as old as BPF.
    // SAFETY: by the caller's promise.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) by) };
}

impl Tables for KernelTables<'_> {
    #[inline(always)]
    fn hash_key(&self) -> HashKey {
        HashKey([
            settings::HASH_KEY_LOW.load(),
            settings::HASH_KEY_HIGH.load(),
        ])
    }

    #[inline(always)]
    fn features(&self) -> u32 {
        maps::SETTINGS
            .get(0)
            .map_or(0, |settings| settings.features)
    }

    #[inline(always)]
    fn tick(&self) -> u32 {
        // SAFETY: reads a clock.
        (unsafe { bpf_ktime_get_coarse_ns() } / TICK_NS) as u32
    }

    #[inline(always)]
    fn service_index(&self, key: &ServiceKey) -> Option<u32> {
        let place = front::place(key, settings::SERVICES_SHIFT.load());
        match front::look(direct::services_front(place), key) {
            Found::Value(index) => Some(index),
            Found::Absent => None,
            Found::AskMap => ask(Map::Services, key),
        }
    }

    #[inline(always)]
    fn is_vip(&self, key: &ServiceKey) -> bool {
        ask(Map::Services, key).is_some()
    }

    #[inline(always)]
    fn service(&self, index: u32) -> Option<&Service> {
        Some(direct::service(
            u64::from(index) & settings::SERVICE_MASK.load(),
        ))
    }

    #[inline(always)]
    fn slot(&self, number: u32) -> Option<Slot> {
        if number < SLOTS {
            return Some(Slot(*direct::slot(below_slots(number))));
        }
        let index = number & (SEGMENT_SLOTS - 1);
        maps::SEGMENTS
            .get_value(number >> LOG2_SEGMENT, &index)
            .map(|word| Slot(*word))
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        match id.checked_sub(BACKENDS) {
            None => Some(direct::backend(
                u64::from(id) & settings::BACKEND_MASK.load(),
            )),
            Some(more) => maps::MORE_BACKENDS.get(more),
        }
    }

    #[inline(always)]
    fn return_service(&self, key: &ServiceKey) -> Option<u32> {
        let place = front::place(key, settings::RETURNS_SHIFT.load()) as u32;
        match front::look(maps::RETURNS_FRONT.get(place)?, key) {
            Found::Value(index) => Some(index),
            Found::Absent => None,
            Found::AskMap => ask(Map::Returns, key),
        }
    }

    #[inline(always)]
    fn source(&self, index: u32) -> Option<Address> {
        maps::SOURCES.get(index).copied()
    }

    #[inline(always)]
    fn next_port(&self, backend: u32) -> Option<u32> {
        let turns = maps::PORT_TURNS.get_ptr_mut(backend)?;
        // SAFETY: a live entry of this CPU, and nothing interrupts the program on it.
        let turn = unsafe {
            let turn = *turns;
            *turns = turn.wrapping_add(1);
            turn
        };
        // SAFETY: reads this CPU's number.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        let position = turn.wrapping_mul(settings::CPUS.load()).wrapping_add(cpu);
        Some(position.wrapping_add(settings::FIRST_TURN.load()))
    }

    #[inline(always)]
    fn with_nat_forward<R>(
        &self,
        key: &FlowKey,
        look: impl FnOnce(&mut NatForward) -> R,
    ) -> Option<R> {
        // SAFETY: the entry's memory stays an entry's while the program runs; its fields are
        // words of their own, and each may be written by any CPU.
        maps::NAT_FORWARD
            .get_ptr_mut(key)
            .map(|flow| look(unsafe { &mut *flow }))
    }

    #[inline(always)]
    fn with_nat_return<R>(
        &self,
        key: &FlowKey,
        look: impl FnOnce(&mut NatReturn) -> R,
    ) -> Option<R> {
        // SAFETY: as above.
        maps::NAT_RETURN
            .get_ptr_mut(key)
            .map(|flow| look(unsafe { &mut *flow }))
    }

    #[inline(always)]
    fn claim_nat_forward(&self, key: &FlowKey, flow: &NatForward) -> Claim {
        let claim = claimed(maps::NAT_FORWARD.insert(key, flow, u64::from(BPF_NOEXIST)));
        if claim == Claim::Won {
            news::translation(key, flow);
        }
        claim
    }

    #[inline(always)]
    fn claim_nat_return(&self, key: &FlowKey, flow: &NatReturn) -> Claim {
        claimed(maps::NAT_RETURN.insert(key, flow, u64::from(BPF_NOEXIST)))
    }

    #[inline(always)]
    fn remove_nat_forward(&self, key: &FlowKey) {
        // An entry that is gone already is as well.
        let _ = maps::NAT_FORWARD.remove(key);
    }

    #[inline(always)]
    fn remove_nat_return(&self, key: &FlowKey) {
        let _ = maps::NAT_RETURN.remove(key);
    }

    #[inline(always)]
    fn with_flow<R>(&self, key: &FlowKey, look: impl FnOnce(&mut Flow) -> R) -> Option<R> {
        // SAFETY: as above.
        maps::FLOWS
            .get_ptr_mut(key)
            .map(|flow| look(unsafe { &mut *flow }))
    }

    #[inline(always)]
    fn remember_flow(&self, key: &FlowKey, flow: &Flow) {
        let new = maps::FLOWS.get_ptr(key).is_none();
        // Nothing helps where the kernel has no memory: the flow goes where it would go
        // without, and is counted as evicted.
        let _ = maps::FLOWS.insert(key, flow, 0);
        if !new {
            return;
        }
        news::flow(key, flow);
        if let Some(count) = maps::FLOWS_REMEMBERED.get_ptr_mut(0) {
            // SAFETY: a live entry of this CPU, and nothing interrupts the program on it.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        // SAFETY: two words, each copied at once; a mix of two clients' cannot be, since an
        // entry keeps its key, and of two moments both are fine.
        unsafe { maps::AFFINITIES.get(key) }.copied()
    }

    #[inline(always)]
    fn set_affinity(&self, key: &AffinityKey, affinity: &Affinity) {
        // The client has no affinity then.
        let _ = maps::AFFINITIES.insert(key, affinity, 0);
        news::affinity(key, affinity);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentWay> {
        // SAFETY: the entry's memory stays an entry's while the program runs. Where it is given to
        // another packet at this very moment a mix may be copied, and one fragment goes astray.
        unsafe { maps::FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn with_first_fragment<R>(&self, look: impl FnOnce(&mut FirstFragment) -> R) -> Option<R> {
        // SAFETY: a live entry of this CPU, and nothing interrupts the program on it, nor the
        // next that it hands the packet on to.
        maps::FIRST_FRAGMENT
            .get_ptr_mut(0)
            .map(|first| look(unsafe { &mut *first }))
    }

    #[inline(always)]
    fn remember_first_fragment(&self) {
        if let Some(FirstFragment { key, way }) = maps::FIRST_FRAGMENT.get(0) {
            // The packet's other fragments are dropped then.
            let _ = maps::FRAGMENTS.insert(key, way, 0);
        }
    }

    #[inline(always)]
    fn next_turn(&self, service: u32) -> u32 {
        let Some(turn) = maps::TURNS.get_ptr_mut(service) else {
            return 0;
        };
        // SAFETY: a live entry, which all CPUs change atomically. Two that read it at the same
        // moment take the same turn.
        unsafe {
            let now = turn.read_volatile();
            add(turn, 1);
            now as u32
        }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: reads the kernel's generator.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn connections(&self, backend: u32) -> u64 {
        // A count that was corrected at the wrong moment may be below zero for a while.
        match maps::CONNECTIONS.get(backend) {
            Some(&count) if count <= u64::MAX / 2 => count,
            _ => 0,
        }
    }

    #[inline(always)]
    fn count_connection(&self, backend: u32, opened: bool) {
        if let Some(count) = maps::CONNECTIONS.get_ptr_mut(backend) {
            // SAFETY: a live entry, which all CPUs change atomically.
            unsafe { add(count, if opened { 1 } else { u64::MAX }) };
        }
    }

    #[inline(always)]
    fn may_send_icmp(&self) -> bool {
        let Some(sent) = maps::ICMP_SENT.get_ptr_mut(0) else {
            return false;
        };
        let this_tick = u64::from(self.tick()) << 32;
        // SAFETY: a live entry of this CPU, and nothing interrupts the program on it.
        unsafe {
            if *sent >> 32 != this_tick >> 32 {
                *sent = this_tick;
            }
            *sent += 1;
            *sent - this_tick <= ICMP_PER_TICK
        }
    }

    #[inline(always)]
    fn route(&self, query: &RouteQuery) -> Route {
        route::lookup(self.context, self.tick(), query)
    }

    #[inline(always)]
    fn count_forwarded(&self, service: u32, backend: u32, bytes: usize, opens: bool) {
        count(maps::SERVICE_COUNTERS.get_ptr_mut(service), bytes, opens);
        count(maps::BACKEND_COUNTERS.get_ptr_mut(backend), bytes, opens);
    }

    #[inline(always)]
    fn count_dropped(&self, service: u32, reason: Reason) {
        if let Some(count) = maps::DROPS.get_ptr_mut(drop_index(service, reason)) {
            // SAFETY: as above.
            unsafe { *count += 1 };
        }
    }
}
