//! The pipeline's questions, answered from the maps.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns},
    programs::XdpContext,
};
use lb_common::{
    abi::{
        Address, Backend, Counters, FlowKey, NatForward, NatReturn, Service, ServiceKey, TICK_NS,
    },
    hash::HashKey,
    reason::{Reason, drop_index},
    slot::Slot,
    tables::{Claim, Route, RouteQuery, Tables},
};

use crate::{maps, route, settings};

/// -EEXIST, from a claim of a key that is there.
const EXISTS: i32 = -17;

/// The maps, as a packet sees them.
pub(crate) struct KernelTables<'a> {
    context: &'a XdpContext,
    ingress: u32,
}

impl<'a> KernelTables<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a XdpContext, ingress: u32) -> Self {
        Self { context, ingress }
    }
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
        (*counters).connections += u64::from(opens);
    }
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
        // SAFETY: one aligned word, copied at once.
        unsafe { maps::SERVICES_BY_KEY.get(key) }.copied()
    }

    #[inline(always)]
    fn service(&self, index: u32) -> Option<&Service> {
        maps::SERVICES.get(index)
    }

    #[inline(always)]
    fn slot(&self, ring: u32, index: u32) -> Option<Slot> {
        maps::RINGS.get_value(ring, &index).map(|word| Slot(*word))
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        maps::BACKENDS.get(id)
    }

    #[inline(always)]
    fn return_service(&self, key: &ServiceKey) -> Option<u32> {
        // SAFETY: one aligned word, copied at once.
        unsafe { maps::RETURNS.get(key) }.copied()
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
        Some(turn.wrapping_mul(settings::CPUS.load()).wrapping_add(cpu))
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
        claimed(maps::NAT_FORWARD.insert(key, flow, u64::from(BPF_NOEXIST)))
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
    fn route(&self, query: &RouteQuery) -> Route {
        route::lookup(self.context, self.ingress, self.tick(), query)
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
