//! What is no ordinary packet: sorted out apart, so that ordinary ones do not pay for it.

use crate::{
    fragment::follow,
    frame::Frame,
    packet::{Packet, Parsed, parse, parse_fragment},
    reason::Reason,
    steer::{Stop, Verdict, verdict},
    tables::Tables,
};

/// Decides about a frame for which [`crate::steer::steer`] gave [`Verdict::Aside`].
#[inline(always)]
pub fn aside<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    if let Parsed::Odd(packet, reason) = parse(frame) {
        return verdict(tables, Err(odd(tables, &packet, reason)));
    }
    match parse_fragment(frame) {
        Some(fragment) => verdict(tables, follow(frame, tables, &fragment)),
        None => Verdict::Icmp,
    }
}

/// What becomes of a packet that no service can be found for, for this reason.
#[inline(always)]
pub(crate) fn odd<T: Tables>(tables: &T, packet: &Packet, reason: Reason) -> Stop {
    match tables.is_vip(&packet.address_key()) {
        true => Stop::Drop(0, reason),
        false => Stop::Pass,
    }
}
