//! Weir's XDP program: a thin shell that gives the pipeline of `lb-common` the packet and
//! the maps, and turns its verdict into an XDP action. Nothing else names one.
#![no_std]
#![no_main]

mod frame;
mod maps;
mod route;
mod settings;
mod tables;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::steer::{Verdict, steer};

use crate::{frame::XdpFrame, tables::KernelTables};

/// The program for every interface that Weir is given.
#[xdp]
pub fn weir(context: XdpContext) -> u32 {
    let ingress = context.ingress_ifindex() as u32;
    let verdict = steer(
        &mut XdpFrame::new(&context),
        &KernelTables::new(&context, ingress),
    );
    match verdict {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop(_reason) => {
            #[cfg(feature = "log")]
            aya_log_ebpf::debug!(&context, "dropped: {}", _reason.name());
            xdp_action::XDP_DROP
        }
        Verdict::Send(out) if out == ingress => xdp_action::XDP_TX,
        Verdict::Send(out) => maps::DEVICES
            .redirect(out, u64::from(xdp_action::XDP_ABORTED))
            .unwrap_or(xdp_action::XDP_ABORTED),
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses a program in which it could be.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
