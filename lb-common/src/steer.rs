//! What happens to a packet: the whole story.
//!
//! parse, find the service, pick a backend by the flow's slot, find the way there, rewrite,
//! count. What comes back from backends is found by its source (`nat`) or its flow
//! (`full-nat`) and gets the VIP back. Everything else is the kernel's.

use crate::{
    abi::{Backend, IPV4, NextHop, Service, backend_flags, features, mode, ring_of},
    frame::Frame,
    full_nat,
    packet::{Packet, Parsed, parse},
    reason::Reason,
    rewrite::{Endpoint, readdress, translate},
    tables::{Route, RouteQuery, Tables},
};

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the kernel's, and unchanged.
    Pass,
    /// It goes nowhere; counted.
    Drop(Reason),
    /// Send it out of the interface with this index.
    Send(u32),
}

/// Why a packet is not sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is the kernel's after all; nothing was changed.
    Pass,
    /// Dropped, on the account of a service (0: of none).
    Drop(u32, Reason),
}

/// Decides about a frame, and changes it where it is to be sent.
#[inline(always)]
pub fn steer<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let sent = match parse(frame) {
        Parsed::Packet(packet) => steer_packet(frame, tables, &packet),
        Parsed::Odd(destination, reason) => match tables.service_index(&destination) {
            Some(_) => Err(Stop::Drop(0, reason)),
            None => Err(Stop::Pass),
        },
        Parsed::Other => Err(Stop::Pass),
    };
    match sent {
        Ok(ifindex) => Verdict::Send(ifindex),
        Err(Stop::Pass) => Verdict::Pass,
        Err(Stop::Drop(service, reason)) => {
            tables.count_dropped(service, reason);
            Verdict::Drop(reason)
        }
    }
}

#[inline(always)]
fn steer_packet<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet,
) -> Result<u32, Stop> {
    if let Some(index) = tables.service_index(&packet.service_key()) {
        let service = tables
            .service(index)
            .ok_or(Stop::Drop(0, Reason::Inconsistent))?;
        let bytes = frame.length();
        let (backend, ifindex) = match service.mode {
            mode::FULL_NAT => full_nat::forward(frame, tables, packet, index, service),
            _ => forward(frame, tables, packet, service),
        }
        .map_err(|reason| Stop::Drop(index, reason))?;
        tables.count_forwarded(index, backend, bytes, packet.opens());
        return Ok(ifindex);
    }
    let features = tables.features();
    if features & features::NAT != 0
        && let Some(index) = tables.return_service(&packet.return_key())
    {
        return backward(frame, tables, packet, index);
    }
    if features & features::FULL_NAT != 0 {
        return full_nat::backward(frame, tables, packet);
    }
    Err(Stop::Pass)
}

/// A packet from a client of a `nat` or `dsr` service.
#[inline(always)]
fn forward<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet,
    service: &Service,
) -> Result<(u32, u32), Reason> {
    let id = select(tables, packet, service)?;
    let backend = usable_backend(tables, id)?;
    let hop = hop_to(tables, frame, packet, service.mode, backend)?;
    if service.mode == mode::NAT {
        may_route(packet)?;
        translate(frame, packet, None, Some(backend.endpoint()))?;
    }
    readdress(frame, packet, &hop)?;
    Ok((id, hop.ifindex))
}

/// A packet from a backend of a `nat` service.
#[inline(always)]
fn backward<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet,
    index: u32,
) -> Result<u32, Stop> {
    let drop = |reason| Stop::Drop(index, reason);
    let service = tables.service(index).ok_or(drop(Reason::Inconsistent))?;
    let hop = match tables.route(&RouteQuery {
        family: packet.family,
        protocol: packet.protocol,
        source: service.address,
        destination: packet.destination,
    }) {
        Route::Via { hop, .. } => hop,
        // An answer to this host itself: to a health check, say.
        Route::Local => return Err(Stop::Pass),
        Route::None(reason) => return Err(drop(reason)),
    };
    fits(frame, packet, &hop).map_err(drop)?;
    may_route(packet).map_err(drop)?;
    translate(frame, packet, Some(service.endpoint()), None).map_err(drop)?;
    readdress(frame, packet, &hop).map_err(drop)?;
    Ok(hop.ifindex)
}

/// The backend of a flow by its slot.
///
/// # Errors
///
/// [`Reason::NoBackend`] where the service has no ring or the slot no owner.
#[inline(always)]
pub(crate) fn select<T: Tables>(
    tables: &T,
    packet: &Packet,
    service: &Service,
) -> Result<u32, Reason> {
    let (ring, mask) = ring_of(service.ring);
    let hash = tables.hash_key().flow(
        packet.family,
        &packet.source,
        &packet.destination,
        packet.ports,
        packet.protocol,
    );
    let slot = tables
        .slot(ring, hash as u32 & mask)
        .ok_or(Reason::NoBackend)?;
    match slot.current() {
        0 => Err(Reason::NoBackend),
        id => Ok(id),
    }
}

/// The backend with an id that a table holds.
///
/// # Errors
///
/// [`Reason::NoBackend`] where it has been removed since.
#[inline(always)]
pub(crate) fn usable_backend<T: Tables>(tables: &T, id: u32) -> Result<&Backend, Reason> {
    tables
        .backend(id)
        .filter(|backend| backend.family != 0)
        .ok_or(Reason::NoBackend)
}

/// The way to a backend: the agent's, or else the kernel's.
///
/// # Errors
///
/// Why there is none, or [`Reason::TooBig`].
#[inline(always)]
pub(crate) fn hop_to<F: Frame, T: Tables>(
    tables: &T,
    frame: &F,
    packet: &Packet,
    mode: u8,
    backend: &Backend,
) -> Result<NextHop, Reason> {
    let mut hop = backend.next_hop;
    if hop.destination == 0 {
        hop = match tables.route(&RouteQuery {
            family: packet.family,
            protocol: packet.protocol,
            source: packet.source,
            destination: backend.address,
        }) {
            // A gateway would send the VIP's packet straight back.
            Route::Via { on_link: false, .. } if mode == mode::DSR => return Err(Reason::NoRoute),
            Route::Via { hop, .. } => hop,
            Route::Local => return Err(Reason::NoRoute),
            Route::None(reason) => return Err(reason),
        };
    }
    fits(frame, packet, &hop)?;
    Ok(hop)
}

#[inline(always)]
pub(crate) fn fits<F: Frame>(frame: &F, packet: &Packet, hop: &NextHop) -> Result<(), Reason> {
    // A device drops what is too long for it without a word.
    if hop.mtu != 0 && frame.length() > packet.l3 + hop.mtu as usize {
        return Err(Reason::TooBig);
    }
    Ok(())
}

#[inline(always)]
pub(crate) fn may_route(packet: &Packet) -> Result<(), Reason> {
    match packet.ttl {
        0 | 1 => Err(Reason::TtlExceeded),
        _ => Ok(()),
    }
}

impl Backend {
    /// Where it listens.
    #[inline(always)]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            address: self.address,
            port: self.port,
        }
    }

    /// Whether it may be given new flows.
    #[inline(always)]
    pub fn alive(&self) -> bool {
        self.flags & backend_flags::ALIVE != 0
    }
}

impl Service {
    /// The VIP.
    #[inline(always)]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            address: self.address,
            port: self.port,
        }
    }
}

const _: () = assert!(IPV4 != 0, "family 0 marks an unused backend");
