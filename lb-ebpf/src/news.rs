//! Telling the agent of what was remembered, for other nodes. Where there are none, the
//! verifier removes it.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use lb_common::abi::{
    Affinity, AffinityKey, Flow, FlowKey, NatForward, Told,
    told::{AFFINITY, FLOW, TRANSLATION},
};

use crate::{maps, settings};

#[inline(always)]
pub(crate) fn flow(key: &FlowKey, flow: &Flow) {
    tell(|| Told {
        key: *key,
        backend: flow.backend,
        index: flow.service,
        source_port: 0,
        kind: FLOW,
        state: flow.state,
        reserved: 0,
    });
}

#[inline(always)]
pub(crate) fn translation(key: &FlowKey, flow: &NatForward) {
    tell(|| Told {
        key: *key,
        backend: flow.backend,
        index: flow.source_index,
        source_port: flow.source_port,
        kind: TRANSLATION,
        state: 0,
        reserved: 0,
    });
}

#[inline(always)]
pub(crate) fn affinity(key: &AffinityKey, affinity: &Affinity) {
    tell(|| Told {
        key: FlowKey {
            source: key.client,
            destination: [0; 2],
            source_port: 0,
            destination_port: 0,
            protocol: 0,
            family: key.family,
            reserved: 0,
        },
        backend: affinity.backend,
        index: key.service,
        source_port: 0,
        kind: AFFINITY,
        state: 0,
        reserved: 0,
    });
}

#[inline(always)]
fn tell(what: impl FnOnce() -> Told) {
    if settings::TELL.load() == 0 {
        return;
    }
    match maps::NEWS.reserve(0) {
        // The agent looks every few milliseconds: waking it for each would cost more.
        Some(mut place) => {
            place.write(what());
            place.submit(u64::from(BPF_RB_NO_WAKEUP));
        }
        None => {
            if let Some(count) = maps::UNTOLD.get_ptr_mut(0) {
                // SAFETY: a live entry of this CPU, and nothing interrupts the program on it.
                unsafe { *count += 1 };
            }
        }
    }
}
