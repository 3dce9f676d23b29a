//! Weir's XDP program: a thin shell that gives the pipeline of `lb-common` the packet and
//! the maps, and turns its verdict into an XDP action. Nothing else names one.
#![no_std]
#![no_main]
// For the one atomic instruction; `-Z build-std` asks for unstable features anyway.
#![feature(asm_experimental_arch)]

mod frame;
mod maps;
mod news;
mod object;
mod route;
mod settings;
mod tables;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{
    abi::program::{ANSWER, OPEN, STEER},
    answer::answer,
    reason::Reason,
    steer::{Verdict, open, steer},
    tables::Tables as _,
};

use crate::{frame::XdpFrame, tables::KernelTables};

/// The program for every interface that Weir is given.
#[xdp]
pub(crate) fn weir(context: XdpContext) -> u32 {
    let ingress = context.ingress_ifindex() as u32;
    let tables = KernelTables::new(&context, ingress);
    match steer(&mut XdpFrame::new(&context), &tables) {
        Verdict::Send(exit) if exit.ifindex == ingress => xdp_action::XDP_TX,
        Verdict::Send(exit) => maps::DEVICES
            .redirect(exit.device.into(), 0)
            .unwrap_or_else(|_| lost(&tables)),
        Verdict::Open => hand_on(&context, &tables, OPEN),
        Verdict::Answer => hand_on(&context, &tables, ANSWER),
        stopped => stop(&context, stopped),
    }
}

/// What [`weir`] hands on, and gets back: the first packet of a flow that is to be
/// remembered. A program of its own, for a stack of its own.
#[xdp]
pub(crate) fn weir_open(context: XdpContext) -> u32 {
    let tables = KernelTables::new(&context, context.ingress_ifindex() as u32);
    match open(&XdpFrame::new(&context), &tables) {
        Ok(()) => hand_on(&context, &tables, STEER),
        Err(Verdict::Answer) => hand_on(&context, &tables, ANSWER),
        Err(stopped) => stop(&context, stopped),
    }
}

/// What the others hand on for its sender to be told that it goes nowhere.
#[xdp]
pub(crate) fn weir_answer(context: XdpContext) -> u32 {
    let tables = KernelTables::new(&context, context.ingress_ifindex() as u32);
    match answer(&mut XdpFrame::new(&context), &tables) {
        true => xdp_action::XDP_TX,
        false => xdp_action::XDP_DROP,
    }
}

/// The action for a packet that is not sent.
#[inline(always)]
fn stop(_context: &XdpContext, verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop(_reason) => {
            #[cfg(feature = "log")]
            aya_log_ebpf::debug!(_context, "dropped: {}", _reason.name());
            xdp_action::XDP_DROP
        }
        Verdict::Send(_) | Verdict::Open | Verdict::Answer => xdp_action::XDP_ABORTED,
    }
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
