//! Programs for the benchmarks: one that stands in front of the program under test and makes
//! every packet another flow's, and floors to compare with.
#![no_std]
#![no_main]

mod frame;
mod object;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, PerCpuArray, ProgramArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::{
    abi::bench::{Feed, TEMPLATE},
    frame::Frame,
    packet::{Parsed, parse},
};

use crate::frame::XdpFrame;

/// What is fed.
#[btf_map]
static FEED: Array<Feed, 1> = Array::new();

/// Packets so far.
#[btf_map]
static COUNT: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The programs that packets are handed on to.
#[btf_map]
static TARGETS: ProgramArray<8> = ProgramArray::new();

/// Writes the next packet over the last one, whatever became of that, and hands it on.
#[xdp]
pub(crate) fn feed(context: XdpContext) -> u32 {
    let (Some(feed), Some(count)) = (FEED.get(0), COUNT.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: a live entry of this CPU's, and nothing interrupts the program on it.
    let number = unsafe {
        *count += 1;
        *count
    };
    // An odd factor visits all flows before the first comes again, in no order that a cache
    // could guess.
    let flow = (number as u32).wrapping_mul(0x9e37_79b1) & feed.mask;
    let low = flow & feed.low_mask;
    let address = feed
        .address
        .wrapping_add((flow >> feed.low_bits) * feed.high_step);
    let address = address.wrapping_add(low * feed.low_step);
    let part = match feed.port_from_high {
        0 => low,
        _ => flow >> feed.low_bits,
    };
    let port = feed.port.wrapping_add(part) as u16;
    let mut frame = XdpFrame::new(&context);
    let Some(mut bytes) = frame.window_mut::<TEMPLATE>(0) else {
        return xdp_action::XDP_ABORTED;
    };
    bytes.copy_from(&feed.template);
    let (address_at, port_at) = (feed.address_at as usize & 63, feed.port_at as usize & 63);
    if let Some(mut place) = frame.window_mut::<4>(address_at) {
        place.set::<u32, 0>(address.to_be());
    }
    if let Some(mut place) = frame.window_mut::<2>(port_at) {
        place.set::<u16, 0>(port.to_be());
    }
    // SAFETY: the context is the kernel's.
    unsafe { TARGETS.tail_call(&context, feed.target) };
    xdp_action::XDP_ABORTED
}

/// Does nothing: what [`feed`] itself costs.
#[xdp]
pub(crate) fn nothing(_: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// The least that a program can do that sends packets back.
#[xdp]
pub(crate) fn swap(context: XdpContext) -> u32 {
    swap_macs(&mut XdpFrame::new(&context));
    xdp_action::XDP_TX
}

/// The least that a program can do that knows a packet's flow.
#[xdp]
pub(crate) fn parse_and_swap(context: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&context);
    match parse(&frame) {
        Parsed::Packet(packet) if packet.ports != 0 => swap_macs(&mut frame),
        _ => return xdp_action::XDP_PASS,
    }
    xdp_action::XDP_TX
}

#[inline(always)]
fn swap_macs(frame: &mut XdpFrame<'_>) {
    let Some(mut ethernet) = frame.window_mut::<12>(0) else {
        return;
    };
    let (first, second) = (ethernet.get::<u32, 0>(), ethernet.get::<u16, 4>());
    let (third, fourth) = (ethernet.get::<u32, 6>(), ethernet.get::<u16, 10>());
    ethernet.set::<u32, 0>(third);
    ethernet.set::<u16, 4>(fourth);
    ethernet.set::<u32, 6>(first);
    ethernet.set::<u16, 10>(second);
}
