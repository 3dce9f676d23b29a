//! Fragments follow the first of their packet, which alone has the ports: it goes where its flow
//! goes, like any packet, and the others are sent as it was. They are known by what all fragments
//! of a packet have, for as long as a host waits for them; those that come before the first are
//! lost.

use core::mem::offset_of;

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    abi::{Address, FragmentKey, FragmentWay, IPV4, NextHop, TICK_NS},
    aside::odd,
    checksum::Delta,
    frame::Frame,
    packet::{FRAGMENT_ID, Fragment, Packet, Parsed, TCP, parse_first, parse_fragment},
    reason::Reason,
    rewrite::{Endpoint, address_delta, readdress, translate_ip},
    selection::age,
    steer::{Exit, Stop, Subject, Verdict, fits, may_route, steer_packet, verdict},
    tables::Tables,
};

/// Ticks for which the others may follow: IPv6 waits for a minute (RFC 8200, 4.5), Linux for half
/// of one with IPv4.
const PATIENCE: u32 = (60_000_000_000 / TICK_NS) as u32 + 1;

/// Sends a fragment after its first. Of a first itself, it notes what that came as.
///
/// # Errors
///
/// [`Stop::FirstFragment`], or why it is not sent.
#[inline(always)]
pub(crate) fn follow<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    fragment: &Fragment,
) -> Result<Exit, Stop> {
    let key = key(fragment);
    match fragment.offset {
        0 => Err(match tables.with_first_fragment(|first| first.key = key) {
            Some(()) => Stop::FirstFragment,
            None => Stop::Drop(0, Reason::Inconsistent),
        }),
        // It would have the flags that the first was let through for (RFC 3128).
        1 if fragment.packet.protocol == TCP => {
            Err(odd(tables, &fragment.packet, Reason::Malformed))
        }
        _ => follow_first(frame, tables, fragment, &key),
    }
}

/// Sends a first fragment, for which [`crate::aside::aside`] gave
/// [`Verdict::FirstFragment`], the way of its flow. What was sent is to be given to [`remember`].
#[inline(always)]
pub fn lead<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let sent = match parse_first(frame) {
        Parsed::Packet(packet) => steer_packet(frame, tables, &packet, Subject::First),
        Parsed::Odd(packet, reason) => Err(odd(tables, &packet, reason)),
        _ => Err(Stop::Pass),
    };
    verdict(tables, sent)
}

#[inline(always)]
fn key(fragment: &Fragment) -> FragmentKey {
    FragmentKey {
        source: fragment.packet.source,
        destination: fragment.packet.destination,
        id: fragment.id,
        protocol: fragment.packet.protocol,
        family: fragment.packet.family,
        reserved: 0,
    }
}

#[inline(always)]
fn follow_first<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    fragment: &Fragment,
    key: &FragmentKey,
) -> Result<Exit, Stop> {
    let packet = &fragment.packet;
    let now = tables.tick();
    let way = tables.fragment(key);
    let Some(way) = way.filter(|way| age(now, way.seen) <= PATIENCE) else {
        return Err(odd(tables, packet, Reason::Fragment));
    };
    let stop = |reason| Stop::Drop(way.service, reason);
    let bytes = frame.length();
    fits(frame, packet, &way.hop).map_err(stop)?;
    if is_translated(key, &way) {
        may_route(packet).map_err(stop)?;
        translate(frame, packet, &way).map_err(stop)?;
        change_id(frame, packet, shift(tables, key)).ok_or(stop(Reason::Malformed))?;
    }
    readdress(frame, packet, &way.hop).map_err(stop)?;
    if way.backend != 0 {
        tables.count_forwarded(way.service, way.backend, bytes, false);
    }
    Ok(way.hop.exit())
}

/// Remembers where the first fragment went that [`lead`] has sent, which is [`note`]d but for the
/// addresses that it was given. Apart, for a stack frame of its own in the kernel. Where it does not
/// succeed the others are dropped.
#[inline(always)]
pub fn remember<F: Frame, T: Tables>(frame: &mut F, tables: &T) {
    let Some(Fragment { packet, .. }) = parse_fragment(frame) else {
        return;
    };
    let seen = tables.tick();
    let translated = tables.with_first_fragment(|first| {
        first.way.source = packet.source;
        first.way.destination = packet.destination;
        first.way.seen = seen;
        is_translated(&first.key, &first.way).then(|| shift(tables, &first.key))
    });
    if let Some(Some(shift)) = translated
        && change_id(frame, &packet, shift).is_none()
    {
        return;
    }
    tables.remember_first_fragment();
}

/// Notes which way a first fragment goes, before anything is changed: later the stack has no room.
#[inline(always)]
pub(crate) fn note<T: Tables>(tables: &T, hop: &NextHop, service: u32, backend: u32) {
    tables.with_first_fragment(|first| {
        first.way.hop = *hop;
        (first.way.service, first.way.backend) = (service, backend);
    });
}

/// Whether fragments are given other addresses, which is routing, and not sent on as they are.
#[inline(always)]
fn is_translated(key: &FragmentKey, way: &FragmentWay) -> bool {
    (key.source, key.destination) != (way.source, way.destination)
}

#[inline(always)]
fn translate<F: Frame>(frame: &mut F, packet: &Packet, way: &FragmentWay) -> Result<(), Reason> {
    let family = packet.family;
    let delta = address_delta(Delta::NONE, family, &packet.source, &way.source);
    let delta = address_delta(delta, family, &packet.destination, &way.destination);
    let at = |address: Address| Some(Endpoint { address, port: 0 });
    let (source, destination) = (at(way.source), at(way.destination));
    translate_ip(frame, packet, source, destination, (true, delta))
}

/// How far the identifications of what is sent between two addresses are moved. Others may get the
/// same new addresses, and number their packets alike: hosts would put together what does not
/// belong together (RFC 6864, 5.3).
#[inline(always)]
fn shift<T: Tables>(tables: &T, key: &FragmentKey) -> u32 {
    let hash_key = tables.hash_key();
    hash_key.flow(key.family, &key.source, &key.destination, 0, key.protocol) as u32
}

/// Moves a fragment's identification.
#[inline(always)]
fn change_id<F: Frame>(frame: &mut F, packet: &Packet, shift: u32) -> Option<()> {
    if packet.family != IPV4 {
        let at = packet.l3 + Ipv6Hdr::LEN + FRAGMENT_ID;
        let mut id = frame.window_mut::<4>(at)?;
        id.set::<u32, 0>(id.get::<u32, 0>().wrapping_add(shift));
        return Some(());
    }
    let mut ip = frame.window_mut::<{ Ipv4Hdr::LEN }>(packet.l3)?;
    let old = ip.get::<u16, { offset_of!(Ipv4Hdr, id) }>();
    let new = old.wrapping_add(shift as u16);
    let check = ip.get::<u16, { offset_of!(Ipv4Hdr, check) }>();
    ip.set::<u16, { offset_of!(Ipv4Hdr, id) }>(new);
    ip.set::<u16, { offset_of!(Ipv4Hdr, check) }>(Delta::NONE.word16(old, new).apply(check));
    Some(())
}
