//! Telling the agent of what was remembered, for other nodes. Where there are none, the
//! verifier removes it. Field by field, where it is to stand: the stack has no room for it.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use lb_common::abi::{
    Affinity, AffinityKey, Flow, FlowKey, NatForward, Told,
    told::{AFFINITY, FLOW, TRANSLATION},
};

use crate::{maps, settings};

#[inline(always)]
pub(crate) fn flow(key: &FlowKey, flow: &Flow) {
    tell(|told| {
        // SAFETY: by the caller's promise.
        unsafe {
            (*told).key = *key;
            (*told).backend = flow.backend;
            (*told).index = flow.service;
            (*told).source_port = 0;
            (*told).kind = FLOW;
            (*told).state = flow.state;
        }
    });
}

#[inline(always)]
pub(crate) fn translation(key: &FlowKey, flow: &NatForward) {
    tell(|told| {
        // SAFETY: by the caller's promise.
        unsafe {
            (*told).key = *key;
            (*told).backend = flow.backend;
            (*told).index = flow.source_index;
            (*told).source_port = flow.source_port;
            (*told).kind = TRANSLATION;
            (*told).state = 0;
        }
    });
}

#[inline(always)]
pub(crate) fn affinity(key: &AffinityKey, affinity: &Affinity) {
    tell(|told| {
        // SAFETY: by the caller's promise.
        unsafe {
            (*told).key.source = key.client;
            (*told).key.destination = [0; 2];
            (*told).key.source_port = 0;
            (*told).key.destination_port = 0;
            (*told).key.protocol = 0;
            (*told).key.family = key.family;
            (*told).key.reserved = 0;
            (*told).backend = affinity.backend;
            (*told).index = key.service;
            (*told).source_port = 0;
            (*told).kind = AFFINITY;
            (*told).state = 0;
        }
    });
}

/// `write` gets a place for a [`Told`] that may be written to, and writes all but its last field.
#[inline(always)]
fn tell(write: impl FnOnce(*mut Told)) {
    if settings::TELL.load() == 0 {
        return;
    }
    match maps::NEWS.reserve(0) {
        Some(mut place) => {
            let told = place.as_mut_ptr();
            // SAFETY: reserved for one, and nobody else's until it is submitted.
            unsafe { (*told).reserved = 0 };
            write(told);
            // The agent looks every few milliseconds: waking it for each would cost more.
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
