//! Programs that make frames, let them through and swallow them: a packet generator for tests
//! and benchmarks, its floor and its end.
#![no_std]
#![no_main]

mod frame;
mod object;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, DevMap, PerCpuArray},
    helpers::generated::bpf_redirect,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::generate::Stream;

use crate::frame::XdpFrame;

/// What is generated.
#[btf_map]
static STREAM: Array<Stream, 1> = Array::new();

/// The number of the next frame.
#[btf_map]
static NEXT: Array<u64, 1> = Array::new();

/// Frames that [`sink`] has swallowed.
#[btf_map]
static SWALLOWED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Where [`relay`] sends frames.
#[btf_map]
static WAY: DevMap<1> = DevMap::new();

/// Makes the next frame and sends it; one call of BPF_PROG_TEST_RUN with live frames runs it as
/// often as that says.
#[xdp]
pub(crate) fn generate(context: XdpContext) -> u32 {
    let (Some(stream), Some(next)) = (STREAM.get(0), NEXT.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: a live entry, which the one call that is made at a time reads and writes.
    let number = unsafe {
        let number = *next;
        *next = number + 1;
        number
    };
    if !stream.write(&mut XdpFrame::new(&context), number) {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: an interface that is not there is refused later.
    unsafe { bpf_redirect(stream.ifindex, 0) as u32 }
}

/// Counts frames and drops them.
#[xdp]
pub(crate) fn sink(_: XdpContext) -> u32 {
    if let Some(count) = SWALLOWED.get_ptr_mut(0) {
        // SAFETY: a live entry of this CPU's, and nothing interrupts the program on it.
        unsafe { *count += 1 };
    }
    xdp_action::XDP_DROP
}

/// The least that a program can do that sends frames on: all go one way, unread.
#[xdp]
pub(crate) fn relay(_: XdpContext) -> u32 {
    match WAY.redirect(0, 0) {
        Ok(action) | Err(action) => action,
    }
}
