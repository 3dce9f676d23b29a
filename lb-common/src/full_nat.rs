//! `full-nat`: both endpoints are rewritten, so every flow is remembered, in both directions.
//!
//! A flow takes a source endpoint (address and port of this host) that no other flow to the
//! same backend endpoint has. Two entries hold it: one found by the client's packets, one by
//! the backend's. Claiming the second under a free key is what reserves the source endpoint;
//! removing it is what frees it, so a port can neither be given twice nor be lost while its
//! entry is there. The agent removes what has ended ([`forgettable`] says when); a search
//! that meets such an entry takes it over, so ports come back even while no agent runs.
//!
//! Ports are taken in turn, the one freed longest ago first: a backend may keep the old
//! connection in TIME_WAIT for a minute and would refuse a new one under the same numbers.

use crate::{
    abi::{Backend, FlowKey, NatForward, NatReturn, Service, TICK_NS, nat_state},
    frame::Frame,
    packet::{Packet, TCP, tcp_flags},
    reason::Reason,
    rewrite::{Endpoint, readdress, translate},
    steer::{Stop, fits, hop_to, may_route, select, usable_backend},
    tables::{Claim, Route, RouteQuery, Tables},
};

/// Source endpoints that are tried for a new flow, one after the other, and then as many
/// far apart: behind a long run of ports in use there may be many free ones.
const TRIES: u32 = 8;

/// Ticks that an ended flow keeps its port: TIME_WAIT lasts 60 s on Linux.
pub const LINGER_TICKS: u32 = (60_000_000_000 / TICK_NS) as u32 + 1;

/// A packet from a client. Returns the backend's id and the interface to send on.
///
/// # Errors
///
/// Why the packet is dropped.
#[inline(always)]
pub(crate) fn forward<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet,
    index: u32,
    service: &Service,
) -> Result<(u32, u32), Reason> {
    may_route(packet)?;
    let key = packet.flow_key();
    let now = tables.tick();
    let flow = match known(tables, packet, &key, now) {
        Some(flow) => flow,
        None => {
            // A copy, so that the packet itself need not be in memory.
            let packet = *packet;
            open(tables, &packet, index, service)?
        }
    };
    let backend = usable_backend(tables, flow.backend)?;
    let source = tables
        .source(flow.source_index)
        .ok_or(Reason::Inconsistent)?;
    let hop = hop_to(tables, frame, packet, service.mode, backend)?;
    let source = Endpoint {
        address: source,
        port: flow.source_port,
    };
    translate(frame, packet, Some(source), Some(backend.endpoint()))?;
    readdress(frame, packet, &hop)?;
    Ok((flow.backend, hop.ifindex))
}

/// A packet from a backend, if it is one of a flow's.
///
/// # Errors
///
/// Pass where it is of no flow, else why it is dropped.
#[inline(always)]
pub(crate) fn backward<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet,
) -> Result<u32, Stop> {
    let now = tables.tick();
    let state = state_of(packet);
    let flow = tables
        .with_nat_return(&packet.flow_key(), |flow| {
            touch(&mut flow.last_seen, &mut flow.state, now, state);
            *flow
        })
        .ok_or(Stop::Pass)?;
    let drop = |reason| Stop::Drop(flow.service, reason);
    let service = tables
        .service(flow.service)
        .ok_or(drop(Reason::Inconsistent))?;
    let hop = match tables.route(&RouteQuery {
        family: packet.family,
        protocol: packet.protocol,
        source: service.address,
        destination: flow.client,
    }) {
        Route::Via { hop, .. } => hop,
        Route::Local => return Err(drop(Reason::NoRoute)),
        Route::None(reason) => return Err(drop(reason)),
    };
    fits(frame, packet, &hop).map_err(drop)?;
    may_route(packet).map_err(drop)?;
    let client = Endpoint {
        address: flow.client,
        port: flow.client_port,
    };
    translate(frame, packet, Some(service.endpoint()), Some(client)).map_err(drop)?;
    readdress(frame, packet, &hop).map_err(drop)?;
    Ok(hop.ifindex)
}

/// The flow, if it is remembered and the packet does not open another in its place.
#[inline(always)]
fn known<T: Tables>(tables: &T, packet: &Packet, key: &FlowKey, now: u32) -> Option<NatForward> {
    let state = state_of(packet);
    let flow = tables.with_nat_forward(key, |flow| {
        touch(&mut flow.last_seen, &mut flow.state, now, state);
        *flow
    })?;
    if !packet.opens() || reopen(tables, key, &flow, now) {
        return Some(flow);
    }
    tables.remove_nat_forward(key);
    None
}

/// The client uses its numbers again (or repeats its SYN): the flow keeps its source
/// endpoint, so that backend and client meet as if they were connected directly, with the
/// backend's own rules for TIME_WAIT. False where its backend may have no new flows.
#[inline(always)]
fn reopen<T: Tables>(tables: &T, key: &FlowKey, flow: &NatForward, now: u32) -> bool {
    let Some(return_key) = return_key(tables, key, flow) else {
        return false;
    };
    if !usable_backend(tables, flow.backend).is_ok_and(Backend::alive) {
        tables.remove_nat_return(&return_key);
        return false;
    }
    tables.with_nat_forward(key, |flow| flow.state = 0);
    tables
        .with_nat_return(&return_key, |flow| {
            flow.state = 0;
            flow.last_seen = now;
        })
        .is_some()
}

/// Takes a source endpoint for a new flow and remembers it. A function of its own, for a
/// stack frame of its own; five arguments, with the result's place, are the most BPF allows.
#[inline(never)]
fn open<T: Tables>(
    tables: &T,
    packet: &Packet,
    index: u32,
    service: &Service,
) -> Result<NatForward, Reason> {
    let key = &packet.flow_key();
    let now = tables.tick();
    if packet.protocol == TCP && !packet.opens() {
        return Err(Reason::UnknownFlow);
    }
    let id = select(tables, packet, service)?;
    let backend = usable_backend(tables, id)?;
    let ports = (service.port_last.wrapping_sub(service.port_first)) as u32 + 1;
    let span = ports.wrapping_mul(service.source_count);
    if span == 0 {
        return Err(Reason::PortsExhausted);
    }
    let reverse = NatReturn {
        client: packet.source,
        service: index,
        backend: id,
        last_seen: now,
        created: now,
        client_port: packet.source_port(),
        state: 0,
        reserved: [0; 5],
    };
    let mut reverse_key = FlowKey {
        source: backend.address,
        destination: [0; 4],
        source_port: backend.port,
        destination_port: 0,
        protocol: packet.protocol,
        family: packet.family,
        reserved: 0,
    };
    let mut attempt = 0;
    while attempt < 2 * TRIES {
        let turn = tables.next_port(id).ok_or(Reason::Inconsistent)?;
        // The second half of the tries jumps around, by a multiplicative hash of the turn.
        let position = match attempt < TRIES {
            true => turn % span,
            false => turn.wrapping_mul(0x9e37_79b1) % span,
        };
        attempt += 1;
        let source_index = service.source_first + position % service.source_count;
        let port = service.port_first + (position / service.source_count) as u16;
        reverse_key.destination = tables.source(source_index).ok_or(Reason::Inconsistent)?;
        reverse_key.destination_port = port.to_be();
        match claim(tables, &reverse_key, &reverse, service.idle_ticks, now) {
            Claim::Won => {}
            Claim::Taken => continue,
            Claim::Full => return Err(Reason::FlowTableFull),
        }
        let flow = NatForward {
            backend: id,
            source_index,
            last_seen: now,
            source_port: port.to_be(),
            state: 0,
            reserved: 0,
        };
        return remember(tables, key, flow, &reverse_key);
    }
    Err(Reason::PortsExhausted)
}

/// Adds the client's side of a flow whose source endpoint is claimed.
#[inline(always)]
fn remember<T: Tables>(
    tables: &T,
    key: &FlowKey,
    flow: NatForward,
    reverse_key: &FlowKey,
) -> Result<NatForward, Reason> {
    match tables.claim_nat_forward(key, &flow) {
        Claim::Won => Ok(flow),
        Claim::Full => {
            tables.remove_nat_return(reverse_key);
            Err(Reason::FlowTableFull)
        }
        // Another CPU had a packet of the same flow at the same time: its choice holds.
        Claim::Taken => {
            tables.remove_nat_return(reverse_key);
            tables
                .with_nat_forward(key, |flow| *flow)
                .ok_or(Reason::Inconsistent)
        }
    }
}

/// Claims a source endpoint, taking it over from a flow that may be forgotten.
#[inline(always)]
fn claim<T: Tables>(
    tables: &T,
    key: &FlowKey,
    flow: &NatReturn,
    idle_ticks: u32,
    now: u32,
) -> Claim {
    let claim = tables.claim_nat_return(key, flow);
    if claim != Claim::Taken {
        return claim;
    }
    let Some(old) = tables.with_nat_return(key, |old| *old) else {
        return Claim::Taken;
    };
    // Its own side alone is asked first: a busy port costs one look-up.
    if !forgettable(old.last_seen, old.state, 0, idle_ticks, now) {
        return Claim::Taken;
    }
    let Some(old_service) = tables.service(old.service) else {
        return Claim::Taken;
    };
    let forward_key = forward_key(old_service, key, &old);
    let forward = tables.with_nat_forward(&forward_key, |forward| *forward);
    if let Some(forward) = forward
        && forward.source_port == key.destination_port
        && forward.backend == old.backend
    {
        let seen = later(old.last_seen, forward.last_seen);
        if !forgettable(seen, old.state, forward.state, idle_ticks, now) {
            return Claim::Taken;
        }
        tables.remove_nat_forward(&forward_key);
    }
    tables.remove_nat_return(key);
    tables.claim_nat_return(key, flow)
}

/// Whether a flow has ended or gone quiet for long enough for its port to be given away.
/// `seen`: tick of its last packet in either direction; the states are those of both.
#[inline(always)]
pub fn forgettable(seen: u32, state: u8, other_state: u8, idle_ticks: u32, now: u32) -> bool {
    let quiet = now.wrapping_sub(seen);
    // Another CPU's clock may be a tick ahead.
    if quiet > u32::MAX / 2 {
        return false;
    }
    let reset = (state | other_state) & nat_state::RST != 0;
    let finished = state & other_state & nat_state::FIN != 0;
    quiet > idle_ticks || ((reset || finished) && quiet > LINGER_TICKS)
}

/// The later of two ticks, which may have wrapped.
#[inline(always)]
pub fn later(one: u32, other: u32) -> u32 {
    match one.wrapping_sub(other) > u32::MAX / 2 {
        true => other,
        false => one,
    }
}

/// The key of a flow's client side, from what its backend side holds.
#[inline(always)]
pub fn forward_key(service: &Service, key: &FlowKey, flow: &NatReturn) -> FlowKey {
    FlowKey {
        source: flow.client,
        destination: service.address,
        source_port: flow.client_port,
        destination_port: service.port,
        protocol: key.protocol,
        family: key.family,
        reserved: 0,
    }
}

/// The key of a flow's backend side, from what its client side holds.
#[inline(always)]
fn return_key<T: Tables>(tables: &T, key: &FlowKey, flow: &NatForward) -> Option<FlowKey> {
    let backend = tables.backend(flow.backend)?;
    Some(FlowKey {
        source: backend.address,
        destination: tables.source(flow.source_index)?,
        source_port: backend.port,
        destination_port: flow.source_port,
        protocol: key.protocol,
        family: key.family,
        reserved: 0,
    })
}

#[inline(always)]
fn state_of(packet: &Packet) -> u8 {
    let mut state = 0;
    if packet.tcp_flags & tcp_flags::FIN != 0 {
        state |= nat_state::FIN;
    }
    if packet.tcp_flags & tcp_flags::RST != 0 {
        state |= nat_state::RST;
    }
    state
}

/// Writes only what differs: a busy flow's entry stays clean in every CPU's cache.
#[inline(always)]
fn touch(last_seen: &mut u32, flow_state: &mut u8, now: u32, state: u8) {
    if *last_seen != now {
        *last_seen = now;
    }
    // A sender that goes on after a RST had not sent it: somebody forged it.
    let new = (*flow_state & !nat_state::RST) | state;
    if new != *flow_state {
        *flow_state = new;
    }
}
