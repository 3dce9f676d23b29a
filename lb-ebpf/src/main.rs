//! Weir's XDP program: a thin shell that gives the pipeline of `lb-common` the packet and
//! the maps, and turns its verdict into an XDP action. Nothing else names one.
#![no_std]
#![no_main]
// For the one atomic instruction and the tables' addresses; `-Z build-std` asks for unstable
// features anyway.
#![feature(asm_experimental_arch)]

mod direct;
mod frame;
mod maps;
mod news;
mod object;
mod route;
mod settings;
mod tables;

use aya_ebpf::{
    bindings::xdp_action, helpers::generated::bpf_redirect_map, macros::xdp, programs::XdpContext,
};
use lb_common::{
    abi::program::{ANSWER, ASIDE, FIRST, ICMP, OPEN, STEER},
    answer::answer,
    aside::aside,
    fragment::{lead, remember},
    icmp::pass_on,
    reason::Reason,
    steer::{Verdict, open, steer},
    tables::Tables as _,
};

use crate::{frame::XdpFrame, tables::KernelTables};

/// The program for every interface that Weir is given.
#[xdp]
pub(crate) fn weir(context: XdpContext) -> u32 {
    let tables = KernelTables::new(&context);
    let verdict = steer(&mut XdpFrame::new(&context), &tables);
    act(&context, &tables, verdict, OPEN)
}

/// What [`weir`] hands on: the first packet of a flow that is to be remembered. A program of its
/// own, for a stack of its own.
#[xdp]
pub(crate) fn weir_open(context: XdpContext) -> u32 {
    let tables = KernelTables::new(&context);
    let verdict = open(&mut XdpFrame::new(&context), &tables);
    act(&context, &tables, verdict, STEER)
}

/// What the others hand on for its sender to be told that it goes nowhere.
#[xdp]
pub(crate) fn weir_answer(context: XdpContext) -> u32 {
    let tables = KernelTables::new(&context);
    match answer(&mut XdpFrame::new(&context), &tables) {
        true => xdp_action::XDP_TX,
        false => xdp_action::XDP_DROP,
    }
}

/// What [`weir`] hands on because it is no ordinary packet.
#[xdp]
pub(crate) fn weir_aside(context: XdpContext) -> u32 {
    let tables = KernelTables::new(&context);
    let verdict = aside(&mut XdpFrame::new(&context), &tables);
    act(&context, &tables, verdict, STEER)
}

/// What [`weir_aside`] hands on: ICMP.
#[xdp]
pub(crate) fn weir_icmp(context: XdpContext) -> u32 {
    let tables = KernelTables::new(&context);
    let verdict = pass_on(&mut XdpFrame::new(&context), &tables);
    act(&context, &tables, verdict, STEER)
}

/// What [`weir_aside`] hands on: the first fragment of a packet.
#[xdp]
pub(crate) fn weir_first(context: XdpContext) -> u32 {
    let tables = KernelTables::new(&context);
    let verdict = lead(&mut XdpFrame::new(&context), &tables);
    if let Verdict::Send(_) = verdict {
        remember_first(&context);
    }
    act(&context, &tables, verdict, OPEN)
}

/// A function of its own, for a stack frame of its own.
#[inline(never)]
fn remember_first(context: &XdpContext) {
    remember(&mut XdpFrame::new(context), &KernelTables::new(context));
}

/// The action for a verdict. `open`: the program that is to make the packet's flow, or knows it.
#[inline(always)]
fn act(context: &XdpContext, tables: &KernelTables<'_>, verdict: Verdict, open: u32) -> u32 {
    match verdict {
        // Read here, not before: until here it would stand on the stack, which has no room left.
        Verdict::Send(exit) if exit.ifindex == context.ingress_ifindex() as u32 => {
            xdp_action::XDP_TX
        }
        Verdict::Send(exit) => redirect(exit.device.into()).unwrap_or_else(|| lost(tables)),
        Verdict::Open => hand_on(context, tables, open),
        Verdict::Answer => hand_on(context, tables, ANSWER),
        Verdict::Aside => hand_on(context, tables, ASIDE),
        Verdict::Icmp => hand_on(context, tables, ICMP),
        Verdict::FirstFragment => hand_on(context, tables, FIRST),
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop(_reason) => {
            #[cfg(feature = "log")]
            aya_log_ebpf::debug!(context, "dropped: {}", _reason.name());
            xdp_action::XDP_DROP
        }
    }
}

/// Sends the packet out of a device; `None`: the agent has not put one there.
#[inline(always)]
fn redirect(device: u64) -> Option<u32> {
    let devices = (&raw const maps::DEVICES).cast_mut().cast();
    // Not by the map's method, which looks at the result from several sides.
    // SAFETY: a map for redirecting; the kernel writes to no memory of ours.
    let action = unsafe { bpf_redirect_map(devices, device, 0) };
    (action == i64::from(xdp_action::XDP_REDIRECT)).then_some(xdp_action::XDP_REDIRECT)
}

/// Gives the packet to another program.
#[inline(always)]
fn hand_on(context: &XdpContext, tables: &KernelTables<'_>, program: u32) -> u32 {
    // SAFETY: the context is the kernel's.
    unsafe { maps::PROGRAMS.tail_call(context, program) };
    // Only where the agent has not put the program there.
    lost(tables)
}

/// Drops what a map that the agent fills has no entry for.
#[inline(always)]
fn lost(tables: &KernelTables<'_>) -> u32 {
    tables.count_dropped(0, Reason::Inconsistent);
    xdp_action::XDP_DROP
}
