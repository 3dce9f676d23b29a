//! What happens to a packet: the whole story.
//!
//! parse, find the service, pick a backend by the flow's slot, find the way there, rewrite,
//! count. What comes back from backends is found by its source (`nat`) or its flow
//! (`full-nat`) and gets the VIP back. An ICMP error goes the way of what would answer the
//! packet that it is about: [`crate::icmp`]. Everything else is the kernel's.

use crate::{
    abi::{Backend, FlowKey, IPV4, NextHop, Service, algorithm, backend_flags, features, mode},
    fragment,
    frame::Frame,
    full_nat,
    icmp::{Quote, translate_error},
    packet::{Packet, Parsed, parse, parse_first},
    reason::Reason,
    rewrite::{Endpoint, readdress, translate},
    selection::{choose, hang_up},
    tables::{Route, RouteQuery, Tables},
};

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the kernel's, and unchanged.
    Pass,
    /// It goes nowhere; counted.
    Drop(Reason),
    /// Send it.
    Send(Exit),
    /// It is the first of a flow that is to be remembered: [`steer`] wants the unchanged frame to
    /// be given to [`open`]. Apart, since it is rare and needs a stack of its own in the kernel.
    /// Where [`open`] says so, another CPU was faster, and [`steer`] knows the flow.
    Open,
    /// It goes nowhere, counted, and its sender is told: give the unchanged frame to
    /// [`crate::answer::answer`]. Apart for the same reason.
    Answer,
    /// It is no ordinary packet: give the unchanged frame to [`crate::aside::aside`]. Apart likewise.
    Aside,
    /// It is ICMP: give the unchanged frame to [`crate::icmp::pass_on`]. Apart likewise.
    Icmp,
    /// It is the first of a packet's fragments: give the unchanged frame to
    /// [`crate::fragment::lead`]. Apart likewise.
    FirstFragment,
}

/// Where a frame leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Interface index.
    pub ifindex: u32,
    /// The interface's index in `DEVICES`.
    pub device: u16,
}

/// Why a packet is not sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is the kernel's after all; nothing was changed.
    Pass,
    /// Dropped, on the account of a service (0: of none).
    Drop(u32, Reason),
    /// Dropped likewise, and its sender is told.
    Answer(u32, Reason),
    /// Its flow is to be made first; nothing was changed.
    Open,
    /// It is no ordinary packet; nothing was changed.
    Aside,
    /// It is the first of a packet's fragments; nothing was changed.
    FirstFragment,
}

/// Decides about a frame, and changes it where it is to be sent.
#[inline(always)]
pub fn steer<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let sent = match parse(frame) {
        Parsed::Packet(packet) => steer_packet(frame, tables, &packet, Subject::Whole),
        Parsed::Odd(..) | Parsed::Aside => Err(Stop::Aside),
        Parsed::Other => Err(Stop::Pass),
    };
    verdict(tables, sent)
}

/// Makes the flow of a frame for which [`steer`] gave [`Verdict::Open`], and sends the frame on,
/// unless it is a fragment.
#[inline(always)]
pub fn open<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let mut parsed = parse(frame);
    let fragment = matches!(parsed, Parsed::Aside);
    if fragment {
        parsed = parse_first(frame);
    }
    let Parsed::Packet(packet) = parsed else {
        return Verdict::Pass;
    };
    let Some(index) = tables.service_index(&packet.service_key()) else {
        return Verdict::Pass;
    };
    let sent = match tables.service(index) {
        Some(service) => full_nat::open(tables, &packet, index, service).and_then(|target| {
            if fragment {
                return Err(Stop::FirstFragment);
            }
            let sent = forward(
                frame,
                tables,
                (&packet, Subject::Whole),
                index,
                service,
                target,
            );
            sent.map_err(|reason| Stop::Drop(index, reason))
        }),
        None => Err(Stop::Drop(index, Reason::Inconsistent)),
    };
    verdict(tables, sent)
}

/// The verdict on a frame that was sent or not; a drop is counted.
#[inline(always)]
pub(crate) fn verdict<T: Tables>(tables: &T, sent: Result<Exit, Stop>) -> Verdict {
    let stop = match sent {
        Ok(exit) => return Verdict::Send(exit),
        Err(stop) => stop,
    };
    match stop {
        Stop::Pass => Verdict::Pass,
        Stop::Open => Verdict::Open,
        Stop::Aside => Verdict::Aside,
        Stop::FirstFragment => Verdict::FirstFragment,
        Stop::Drop(service, reason) => {
            tables.count_dropped(service, reason);
            Verdict::Drop(reason)
        }
        Stop::Answer(service, reason) => {
            tables.count_dropped(service, reason);
            Verdict::Answer
        }
    }
}

/// Sends a packet, or the first fragment of one, on, or says why not.
#[inline(always)]
pub(crate) fn steer_packet<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet,
    subject: Subject<'_>,
) -> Result<Exit, Stop> {
    if let Some(index) = tables.service_index(&packet.service_key()) {
        let service = tables
            .service(index)
            .ok_or(Stop::Drop(0, Reason::Inconsistent))?;
        let stop = |reason| Stop::Drop(index, reason);
        let target = match service.mode {
            mode::FULL_NAT => full_nat::known(tables, packet, index, service)?,
            _ => Target {
                backend: choose(tables, packet, index, service)?,
                source: None,
            },
        };
        return forward(frame, tables, (packet, subject), index, service, target).map_err(stop);
    }
    let features = tables.features();
    if features & features::NAT != 0
        && let Some(index) = tables.return_service(&packet.return_key())
    {
        return backward(frame, tables, (packet, subject), index, None);
    }
    if features & features::FULL_NAT != 0
        && let Some((index, client)) = full_nat::client_of(tables, packet)
    {
        return backward(frame, tables, (packet, subject), index, Some(client));
    }
    Err(Stop::Pass)
}

/// Where a packet of a client's goes.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Backend id.
    pub(crate) backend: u32,
    /// What the backend sees as the source (`full-nat`).
    pub(crate) source: Option<Endpoint>,
}

/// What is sent on.
#[derive(Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// A packet.
    Whole,
    /// The first fragment of one, which others will follow.
    First,
    /// An ICMP error that quotes this.
    Error(&'a Quote),
}

/// A packet from a client, or an error about an answer to one, to its backend.
#[inline(always)]
pub(crate) fn forward<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    (packet, subject): (&Packet, Subject<'_>),
    index: u32,
    service: &Service,
    target: Target,
) -> Result<Exit, Reason> {
    let backend = usable_backend(tables, target.backend)?;
    let hop = hop_to(tables, packet, service.mode, backend)?;
    fits(frame, packet, &hop)?;
    if let Subject::First = subject {
        fragment::note(tables, &hop, index, target.backend);
    }
    let bytes = frame.length();
    if service.mode != mode::DSR {
        may_route(packet)?;
        let destination = Some(backend.endpoint());
        rewrite(frame, (packet, subject), target.source, destination)?;
    }
    readdress(frame, packet, &hop)?;
    tables.count_forwarded(index, target.backend, bytes, packet.opens());
    Ok(hop.exit())
}

/// A packet from a backend, or an error about one to it, to the client that saw the service's
/// VIP.
#[inline(always)]
pub(crate) fn backward<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    (packet, subject): (&Packet, Subject<'_>),
    index: u32,
    client: Option<Endpoint>,
) -> Result<Exit, Stop> {
    let stop = |reason| Stop::Drop(index, reason);
    let service = tables.service(index).ok_or(stop(Reason::Inconsistent))?;
    if client.is_none() && service.algorithm == algorithm::LEAST_CONNECTIONS && packet.ends() {
        // A copy, as in `selection::choose`.
        hang_up(tables, &{ *packet }, index, service);
    }
    let hop = match tables.route(&RouteQuery {
        family: packet.family,
        protocol: packet.protocol,
        source: service.address,
        destination: client.map_or(packet.destination, |client| client.address),
    }) {
        Route::Via { hop, .. } => hop,
        // An answer to this host itself: to a health check, say. Where the kernel may not
        // forward it does not tell, and an answer that is not for it will get lost there.
        Route::Local | Route::None(Reason::ForwardingDisabled) => return Err(Stop::Pass),
        Route::None(reason) => return Err(stop(reason)),
    };
    fits(frame, packet, &hop).map_err(stop)?;
    if let Subject::First = subject {
        fragment::note(tables, &hop, index, 0);
    }
    may_route(packet).map_err(stop)?;
    let source = Some(service.endpoint());
    rewrite(frame, (packet, subject), source, client).map_err(stop)?;
    readdress(frame, packet, &hop).map_err(stop)?;
    Ok(hop.exit())
}

/// See [`translate`] and [`translate_error`].
#[inline(always)]
fn rewrite<F: Frame>(
    frame: &mut F,
    (packet, subject): (&Packet, Subject<'_>),
    source: Option<Endpoint>,
    destination: Option<Endpoint>,
) -> Result<(), Reason> {
    match subject {
        Subject::Error(quote) => translate_error(frame, packet, quote, source, destination),
        _ => translate(frame, packet, source, destination),
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
/// Why there is none.
#[inline(always)]
fn hop_to<T: Tables>(
    tables: &T,
    packet: &Packet,
    mode: u8,
    backend: &Backend,
) -> Result<NextHop, Reason> {
    // A gateway would send the VIP's packet straight back.
    if mode == mode::DSR && backend.flags & backend_flags::ROUTED != 0 {
        return Err(Reason::NotOnLink);
    }
    if backend.next_hop.destination != 0 {
        return Ok(backend.next_hop);
    }
    match tables.route(&RouteQuery {
        family: packet.family,
        protocol: packet.protocol,
        source: packet.source,
        destination: backend.address,
    }) {
        Route::Via { on_link: false, .. } if mode == mode::DSR => Err(Reason::NotOnLink),
        Route::Via { hop, .. } => Ok(hop),
        Route::Local => Err(Reason::NoRoute),
        Route::None(reason) => Err(reason),
    }
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

impl NextHop {
    /// Where its frames leave.
    #[inline(always)]
    pub(crate) fn exit(&self) -> Exit {
        Exit {
            ifindex: self.ifindex,
            device: self.device,
        }
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

    /// Whether it has failed, and its flows with it.
    #[inline(always)]
    pub fn dead(&self) -> bool {
        self.flags & backend_flags::DEAD != 0
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

    /// A client's flow, as its packets have it.
    #[inline(always)]
    pub(crate) fn flow_key(&self, client: Endpoint, protocol: u8) -> FlowKey {
        FlowKey {
            source: client.address,
            destination: self.address,
            source_port: client.port,
            destination_port: self.port,
            protocol,
            family: self.family,
            reserved: 0,
        }
    }
}

const _: () = assert!(IPV4 != 0, "family 0 marks an unused backend");
