//! ICMP errors about packets of a service's flows (RFC 792, RFC 4443), with the rules for
//! address translators (RFC 5508): without them a path's smaller MTU is never learned, and a
//! UDP client is never told of a closed port.
//!
//! An error goes to the sender of the packet that it quotes, and so it takes the way of what
//! would answer that packet: about an answer of the VIP's to the backend, about a packet to a
//! backend to the client. It is no packet of the flow: nothing is remembered, opened or kept
//! alive by it, as anybody can make one up.

use crate::{
    abi::{IPV4, features, mode},
    checksum::Delta,
    frame::Frame,
    full_nat,
    packet::{Packet, QUOTED, UDP, parse_icmp, parse_quoted},
    reason::Reason,
    rewrite::{Endpoint, address_delta, translate_ip},
    selection,
    steer::{Exit, Stop, Subject, Target, Verdict, backward, forward, verdict},
    tables::Tables,
};

/// Bytes of an ICMP error's header; the quoted packet is behind it.
const HEADER: usize = 8;
/// Where the header has its checksum.
const CHECKSUM: usize = 2;
/// Where a TCP header has its checksum, behind what is sure to be quoted.
const TCP_CHECKSUM: usize = 16;

/// What an ICMP error quotes.
pub(crate) struct Quote {
    /// What would answer the quoted packet, with the offsets of the quote's headers.
    about: Packet,
    /// Where the quoting packet ends.
    end: usize,
}

/// Sends an ICMP error about a flow of a service on. All other ICMP is the kernel's, and so are
/// errors that quote too little, or something else.
#[inline(always)]
pub fn pass_on<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let sent = match read(frame) {
        Some((packet, quote)) => send(frame, tables, &packet, &quote),
        None => Err(Stop::Pass),
    };
    verdict(tables, sent)
}

/// The headers of an ICMP error, and what it quotes.
#[inline(always)]
fn read<F: Frame>(frame: &F) -> Option<(Packet, Quote)> {
    let (packet, end) = parse_icmp(frame)?;
    let kind = frame.window::<HEADER>(packet.l4)?.get::<u8, 0>();
    let error = match packet.family {
        // Destination unreachable (also: fragmentation needed), time exceeded, parameter problem.
        IPV4 => matches!(kind, 3 | 11 | 12),
        // The same, and packet too big.
        _ => matches!(kind, 1..=4),
    };
    if !error {
        return None;
    }
    let quoted = parse_quoted(frame, packet.family, packet.l4 + HEADER, end)?;
    // Only its sender is to be told.
    if quoted.source != packet.destination {
        return None;
    }
    let about = Packet {
        // The same, but the stack has no room for it twice.
        family: packet.family,
        destination: packet.destination,
        ..quoted.turned()
    };
    Some((packet, Quote { about, end }))
}

#[inline(always)]
fn send<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet,
    quote: &Quote,
) -> Result<Exit, Stop> {
    let subject = (packet, Subject::Error(quote));
    let about = &quote.about;
    if let Some(index) = tables.service_index(&about.service_key()) {
        let service = tables
            .service(index)
            .ok_or(Stop::Drop(0, Reason::Inconsistent))?;
        let target = match service.mode {
            mode::FULL_NAT => full_nat::held(tables, about, index)?,
            _ => Target {
                backend: selection::held(tables, about, index, service)?,
                source: None,
            },
        };
        return forward(frame, tables, subject, index, service, target)
            .map_err(|reason| Stop::Drop(index, reason));
    }
    let (index, client) = sender(tables, about).ok_or(Stop::Pass)?;
    backward(frame, tables, subject, index, client)
}

/// Service index of what a backend sends, and its client if the packet does not have it.
#[inline(always)]
fn sender<T: Tables>(tables: &T, packet: &Packet) -> Option<(u32, Option<Endpoint>)> {
    let features = tables.features();
    if features & features::NAT != 0
        && let Some(index) = tables.return_service(&packet.return_key())
    {
        return Some((index, None));
    }
    if features & features::FULL_NAT == 0 {
        return None;
    }
    let (index, client) = full_nat::holder(tables, packet)?;
    Some((index, Some(client)))
}

/// Does to an ICMP error what [`crate::rewrite::translate`] does to what would answer the packet
/// that it quotes: the outer header gets that one's new addresses, and the quote the same the
/// other way round, so that its sender knows it again.
///
/// # Errors
///
/// As [`crate::rewrite::translate`].
#[inline(always)]
pub(crate) fn translate_error<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    quote: &Quote,
    source: Option<Endpoint>,
    destination: Option<Endpoint>,
) -> Result<(), Reason> {
    let about = &quote.about;
    let mut outer = Delta::NONE;
    let mut addresses = Delta::NONE;
    let mut ports = Delta::NONE;
    if let Some(new) = source {
        outer = address_delta(outer, packet.family, &packet.source, &new.address);
        addresses = address_delta(addresses, packet.family, &about.source, &new.address);
        ports = ports.word16(about.source_port(), new.port);
    }
    if let Some(new) = destination {
        outer = address_delta(outer, packet.family, &packet.destination, &new.address);
        addresses = address_delta(addresses, packet.family, &about.destination, &new.address);
        ports = ports.word16(about.destination_port(), new.port);
    }
    translate_ip(frame, packet, source, destination, (true, outer))?;
    translate_ip(frame, about, destination, source, (false, addresses))?;
    let both = addresses.and(ports);
    let mut sum = translate_quoted_l4(frame, quote, source, destination, both)?.and(ports);
    if packet.family != IPV4 {
        // ICMPv6's checksum is of the outer addresses too. IPv4's quoted addresses are made up
        // for by the checksum beside them.
        sum = sum.and(outer).and(addresses);
    }
    let mut icmp = frame
        .window_mut::<HEADER>(packet.l4)
        .ok_or(Reason::Malformed)?;
    let check = icmp.get::<u16, CHECKSUM>();
    icmp.set::<u16, CHECKSUM>(sum.apply(check));
    Ok(())
}

/// Gives the quote its ports, and its TCP or UDP checksum what follows from `delta`, as Linux
/// does, if that is quoted. What of the change is the checksum's.
#[inline(always)]
fn translate_quoted_l4<F: Frame>(
    frame: &mut F,
    quote: &Quote,
    source: Option<Endpoint>,
    destination: Option<Endpoint>,
    delta: Delta,
) -> Result<Delta, Reason> {
    let about = &quote.about;
    let mut ports = frame
        .window_mut::<QUOTED>(about.l4)
        .ok_or(Reason::Malformed)?;
    if let Some(new) = destination {
        ports.set::<u16, 0>(new.port);
    }
    if let Some(new) = source {
        ports.set::<u16, 2>(new.port);
    }
    if about.protocol == UDP {
        let check = ports.get::<u16, 6>();
        // Zero: the sender computed none (RFC 768).
        if check == 0 {
            return Ok(Delta::NONE);
        }
        let new = delta.apply_udp(check);
        ports.set::<u16, 6>(new);
        return Ok(Delta::NONE.word16(check, new));
    }
    if about.l4 + TCP_CHECKSUM + 2 > quote.end {
        return Ok(Delta::NONE);
    }
    let mut tcp = frame
        .window_mut::<{ TCP_CHECKSUM + 2 }>(about.l4)
        .ok_or(Reason::Malformed)?;
    let check = tcp.get::<u16, TCP_CHECKSUM>();
    let new = delta.apply(check);
    tcp.set::<u16, TCP_CHECKSUM>(new);
    Ok(Delta::NONE.word16(check, new))
}
