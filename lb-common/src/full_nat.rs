//! `full-nat`: both endpoints are rewritten, so every flow is remembered, in both directions.
//!
//! A flow takes a source endpoint (address and port of this host) that no other flow to the
//! same backend endpoint has. Two entries hold it: [`NatForward`], found by the client's
//! packets, and [`NatReturn`], found by the backend's. Claiming the second under a free key
//! is what reserves the source endpoint, removing it is what frees it, and it alone says
//! whether the flow lives: a port can neither be given twice nor be lost. The agent removes
//! what has ended ([`forgettable`] says when); a search that meets such an entry takes it
//! over, so ports come back even while no agent runs.
//!
//! Ports are taken in turn, the one freed longest ago first: a backend may keep the old
//! connection in TIME_WAIT for a minute and would refuse a new one under the same numbers.

use core::num::NonZeroU32;

use crate::{
    abi::{FlowKey, NatForward, NatReturn, Service, TICK_NS, algorithm, nat_state, service_flags},
    packet::{Packet, TCP, tcp_flags},
    reason::Reason,
    rewrite::Endpoint,
    selection::{age, current, hash, living, pick, stop},
    steer::{Stop, Target, usable_backend},
    tables::{Claim, Tables},
};

/// Source endpoints that are tried for a new flow, one after the other, and then as many
/// far apart: behind a long run of ports in use there may be many free ones.
const TRIES: u32 = 8;

/// Ticks that an ended flow keeps its port: TIME_WAIT lasts 60 s on Linux.
pub const LINGER_TICKS: u32 = (60_000_000_000 / TICK_NS) as u32 + 1;

/// Where a client's packet goes, if its flow is remembered and it does not open another in
/// its place.
///
/// # Errors
///
/// [`Stop::Open`] where the flow is to be made first: see [`open`]. Else why the packet is
/// dropped.
#[inline(always)]
pub(crate) fn known<T: Tables>(
    tables: &T,
    packet: &Packet,
    index: u32,
    service: &Service,
) -> Result<Target, Stop> {
    // Copies, as in `selection::choose`.
    let Some(flow) = remembered(tables, &{ *packet }, service) else {
        return Err(match packet.protocol == TCP && !packet.opens() {
            true => stop(service, index, Reason::UnknownFlow),
            false => Stop::Open,
        });
    };
    let (alive, dead) = match tables.backend(flow.backend) {
        Some(backend) => (backend.alive(), backend.dead()),
        None => (false, false),
    };
    if (dead || (packet.opens() && !alive)) && lose(tables, &{ *packet }, service, &flow) {
        let told = packet.protocol == TCP
            && !packet.opens()
            && service.flags & service_flags::DIE_SILENTLY == 0;
        return Err(match told {
            true => stop(service, index, Reason::BackendDead),
            false => Stop::Open,
        });
    }
    target(tables, index, &flow)
}

/// Where a packet of a flow goes.
#[inline(always)]
fn target<T: Tables>(tables: &T, index: u32, flow: &NatForward) -> Result<Target, Stop> {
    Ok(Target {
        backend: flow.backend,
        source: Some(Endpoint {
            address: tables
                .source(flow.source_index)
                .ok_or(Stop::Drop(index, Reason::Inconsistent))?,
            port: flow.source_port,
        }),
    })
}

/// Where the flow of a client's packet goes, which that client may not have sent: nothing is
/// noted or made.
///
/// # Errors
///
/// [`Stop::Pass`] where there is no such flow, or why nothing of it can be sent.
#[inline(always)]
pub(crate) fn held<T: Tables>(tables: &T, packet: &Packet, index: u32) -> Result<Target, Stop> {
    let flow = tables.with_nat_forward(&packet.flow_key(), |flow| *flow);
    let flow = flow.ok_or(Stop::Pass)?;
    living(tables, index, flow.backend)?;
    let key = return_key(tables, packet, &flow).ok_or(Stop::Pass)?;
    match tables.with_nat_return(&key, |other| is_of(other, packet)) {
        Some(true) => target(tables, index, &flow),
        _ => Err(Stop::Pass),
    }
}

/// Service index and client of the flow that a backend's packet is of, if any, which that
/// backend may not have sent: nothing is noted.
#[inline(always)]
pub(crate) fn holder<T: Tables>(tables: &T, packet: &Packet) -> Option<(u32, Endpoint)> {
    tables.with_nat_return(&packet.flow_key(), |flow| (flow.service, client(flow)))
}

/// Service index and client of the flow that a backend's packet is of, if any.
#[inline(always)]
pub(crate) fn client_of<T: Tables>(tables: &T, packet: &Packet) -> Option<(u32, Endpoint)> {
    let now = tables.tick();
    let (service, client, ended) = tables.with_nat_return(&packet.flow_key(), |flow| {
        let ended = touch(flow, packet, nat_state::BACKEND_FIN, now);
        (flow.service, client(flow), ended)
    })?;
    if ended != 0 {
        tables.count_connection(ended, false);
    }
    Some((service, client))
}

#[inline(always)]
fn remembered<T: Tables>(tables: &T, packet: &Packet, service: &Service) -> Option<NatForward> {
    let mut marked = false;
    let flow = look(tables, packet, &mut marked)?;
    if marked && !packet.ends() && !packet.opens() {
        return Some(flow);
    }
    let counts = service.algorithm == algorithm::LEAST_CONNECTIONS;
    match mark(tables, packet, &flow, counts) {
        true => Some(flow),
        false => None,
    }
}

/// The flow that a client's packet finds, and whether its other entry knows already that it
/// lives. A function of its own, for a stack frame of its own.
#[inline(never)]
fn look<T: Tables>(tables: &T, packet: &Packet, marked: &mut bool) -> Option<NatForward> {
    let now = tables.tick();
    tables.with_nat_forward(&packet.flow_key(), |flow| {
        *marked = flow.last_seen == now;
        flow.last_seen = now;
        *flow
    })
}

/// Tells the flow's other entry of the client's packet. False where that has gone, or is
/// another flow's by now, and this one with it. `counts`: the service counts connections.
///
/// A client that uses its numbers again (or repeats its SYN) keeps the source endpoint, so
/// that it and the backend meet as if they were connected directly, with the backend's own
/// rules for TIME_WAIT.
#[inline(never)]
fn mark<T: Tables>(tables: &T, packet: &Packet, flow: &NatForward, counts: bool) -> bool {
    let Some(key) = return_key(tables, packet, flow) else {
        return false;
    };
    let now = tables.tick();
    let mut opened = 0;
    let ended = tables.with_nat_return(&key, |flow| {
        if !is_of(flow, packet) {
            return None;
        }
        if packet.opens() {
            if counts && flow.state & nat_state::COUNTED == 0 {
                flow.state |= nat_state::COUNTED;
                opened = flow.backend;
            }
            flow.state &= nat_state::COUNTED;
        }
        Some(touch(flow, packet, nat_state::CLIENT_FIN, now))
    });
    if opened != 0 {
        tables.count_connection(opened, true);
    }
    match ended.flatten() {
        Some(0) => true,
        Some(id) => {
            tables.count_connection(id, false);
            true
        }
        None => {
            tables.remove_nat_forward(&packet.flow_key());
            false
        }
    }
}

/// Whether an entry is of the flow of a client's packet.
#[inline(always)]
fn is_of(flow: &NatReturn, packet: &Packet) -> bool {
    flow.client == packet.source && flow.client_port == packet.source_port()
}

/// The key of a flow's backend side, from its client side; none where its backend or source
/// address is no more.
#[inline(always)]
fn return_key<T: Tables>(tables: &T, packet: &Packet, flow: &NatForward) -> Option<FlowKey> {
    let backend = tables.backend(flow.backend)?;
    Some(FlowKey {
        source: backend.address,
        destination: tables.source(flow.source_index)?,
        source_port: backend.port,
        destination_port: flow.source_port,
        protocol: packet.protocol,
        family: packet.family,
        reserved: 0,
    })
}

/// Forgets a flow whose backend has died, or takes nothing new and was to. False where the
/// table still names that backend: it would only be given back, until the agent, which is at
/// it, has written the slot. A function of its own, for a stack frame of its own.
#[inline(never)]
fn lose<T: Tables>(tables: &T, packet: &Packet, service: &Service, flow: &NatForward) -> bool {
    if packet.opens()
        && service.algorithm == algorithm::HASH
        && current(tables, service, hash(tables, packet, service)) == flow.backend
    {
        return false;
    }
    if let Some(key) = return_key(tables, packet, flow) {
        remove(tables, &key);
    }
    tables.remove_nat_forward(&packet.flow_key());
    true
}

/// Removes a flow's backend side, and its connection from its backend's count.
#[inline(always)]
fn remove<T: Tables>(tables: &T, key: &FlowKey) {
    let counted = tables.with_nat_return(key, |flow| {
        let counted = flow.state & nat_state::COUNTED != 0;
        flow.state &= !nat_state::COUNTED;
        if counted { flow.backend } else { 0 }
    });
    if let Some(id) = counted
        && id != 0
    {
        tables.count_connection(id, false);
    }
    tables.remove_nat_return(key);
}

/// Takes a source endpoint for a new flow and remembers it. Where its packet goes.
///
/// # Errors
///
/// Why there is no flow; [`Stop::Open`] where another CPU had a packet of the same flow at the
/// same time: its choice holds, which [`known`] tells.
#[inline(always)]
pub(crate) fn open<T: Tables>(
    tables: &T,
    packet: &Packet,
    index: u32,
    service: &Service,
) -> Result<Target, Stop> {
    let now = tables.tick();
    let hash = hash(tables, packet, service);
    let id = pick(tables, packet, index, service, hash).map_err(|why| stop(service, index, why))?;
    let dropped = |reason| Stop::Drop(index, reason);
    let backend = usable_backend(tables, id).map_err(dropped)?;
    let counted = service.algorithm == algorithm::LEAST_CONNECTIONS;
    let mut entry = NatReturn {
        client: packet.source,
        service: index,
        backend: id,
        last_seen: now,
        created: now,
        client_port: packet.source_port(),
        state: if counted { nat_state::COUNTED } else { 0 },
        reserved: 0,
        source_index: 0,
    };
    let mut key = FlowKey {
        source: backend.address,
        destination: [0; 2],
        source_port: backend.port,
        destination_port: 0,
        protocol: packet.protocol,
        family: packet.family,
        reserved: 0,
    };
    reserve(tables, service, &mut key, &mut entry, now).map_err(dropped)?;
    let flow = NatForward {
        backend: id,
        source_index: entry.source_index,
        last_seen: now,
        source_port: key.destination_port,
        reserved: 0,
    };
    match tables.claim_nat_forward(&packet.flow_key(), &flow) {
        Claim::Won => {
            if counted {
                tables.count_connection(id, true);
            }
            Ok(Target {
                backend: id,
                source: Some(Endpoint {
                    address: key.destination,
                    port: key.destination_port,
                }),
            })
        }
        Claim::Full => {
            tables.remove_nat_return(&key);
            Err(dropped(Reason::FlowTableFull))
        }
        Claim::Taken => {
            tables.remove_nat_return(&key);
            Err(Stop::Open)
        }
    }
}

/// Puts the entry under the key of a free source endpoint, and that endpoint into both.
///
/// Where none is free, that of a flow which has ended is given away before its time, of those
/// met the one that has been quiet for longest: a backend that has it in TIME_WAIT takes a
/// SYN whose timestamp or sequence number is newer (RFC 6191, RFC 9293 3.6.1), and one that
/// does not is still better than a port that nobody gets.
///
/// # Errors
///
/// [`Reason::PortsExhausted`] or [`Reason::FlowTableFull`].
#[inline(always)]
fn reserve<T: Tables>(
    tables: &T,
    service: &Service,
    key: &mut FlowKey,
    entry: &mut NatReturn,
    now: u32,
) -> Result<(), Reason> {
    let ports = service.port_last.wrapping_sub(service.port_first) as u32 + 1;
    let span = NonZeroU32::new(ports.wrapping_mul(service.source_count));
    let span = span.ok_or(Reason::PortsExhausted)?;
    // The one to give away, and for how long it has been quiet.
    let mut ended_position = 0;
    let mut ended_quiet = 0;
    let mut attempt = 0;
    while attempt < 2 * TRIES {
        let turn = tables
            .next_port(entry.backend)
            .ok_or(Reason::Inconsistent)?;
        // The second half of the tries jumps around, by a multiplicative hash of the turn.
        let position = match attempt < TRIES {
            true => turn % span,
            false => turn.wrapping_mul(0x9e37_79b1) % span,
        };
        attempt += 1;
        put_source(tables, service, key, entry, position)?;
        match tables.claim_nat_return(key, entry) {
            Claim::Won => return Ok(()),
            Claim::Full => return Err(Reason::FlowTableFull),
            Claim::Taken => {}
        }
        let quiet = tables
            .with_nat_return(key, |old| {
                match (forgettable(old, service.idle_ticks, now), ended(old.state)) {
                    (true, _) => u32::MAX,
                    (false, true) => age(now, old.last_seen),
                    (false, false) => 0,
                }
            })
            .unwrap_or(0);
        if quiet > ended_quiet {
            (ended_position, ended_quiet) = (position, quiet);
        }
        if quiet == u32::MAX {
            break;
        }
    }
    if ended_quiet == 0 {
        return Err(Reason::PortsExhausted);
    }
    put_source(tables, service, key, entry, ended_position)?;
    // Whoever else does so at this moment leaves it to one of us.
    match take_over(tables, key, entry) {
        Claim::Won => Ok(()),
        Claim::Taken => Err(Reason::PortsExhausted),
        Claim::Full => Err(Reason::FlowTableFull),
    }
}

/// Puts a source endpoint into both, by its position among the service's.
///
/// # Errors
///
/// [`Reason::Inconsistent`].
#[inline(always)]
fn put_source<T: Tables>(
    tables: &T,
    service: &Service,
    key: &mut FlowKey,
    entry: &mut NatReturn,
    position: u32,
) -> Result<(), Reason> {
    let sources = NonZeroU32::new(service.source_count).ok_or(Reason::Inconsistent)?;
    let port = service.port_first.wrapping_add((position / sources) as u16);
    key.destination_port = port.to_be();
    entry.source_index = service.source_first.wrapping_add(position % sources);
    key.destination = tables
        .source(entry.source_index)
        .ok_or(Reason::Inconsistent)?;
    Ok(())
}

/// Gives the source endpoint of a flow that has ended to another.
#[inline(always)]
fn take_over<T: Tables>(tables: &T, key: &FlowKey, entry: &NatReturn) -> Claim {
    let Some(old) = tables.with_nat_return(key, |old| *old) else {
        return Claim::Taken;
    };
    if let Some(service) = tables.service(old.service) {
        let forward = forward_key(service, key, &old);
        let leads_here = tables.with_nat_forward(&forward, |flow| leads_to(flow, key, &old));
        if leads_here == Some(true) {
            tables.remove_nat_forward(&forward);
        }
    }
    remove(tables, key);
    tables.claim_nat_return(key, entry)
}

/// Whether a client side is that of the backend side under `key`: a client that has used its
/// numbers again may have another by now.
#[inline(always)]
pub fn leads_to(flow: &NatForward, key: &FlowKey, other: &NatReturn) -> bool {
    (flow.backend, flow.source_index, flow.source_port)
        == (other.backend, other.source_index, key.destination_port)
}

/// Whether a flow has ended, or gone quiet, for long enough for its port to be given away.
#[inline(always)]
pub fn forgettable(flow: &NatReturn, idle_ticks: u32, now: u32) -> bool {
    let quiet = age(now, flow.last_seen);
    quiet > idle_ticks || (ended(flow.state) && quiet > LINGER_TICKS)
}

/// The key of a flow's client side, from its backend side.
#[inline(always)]
pub fn forward_key(service: &Service, key: &FlowKey, flow: &NatReturn) -> FlowKey {
    service.flow_key(client(flow), key.protocol)
}

/// The client of a flow.
#[inline(always)]
fn client(flow: &NatReturn) -> Endpoint {
    Endpoint {
        address: flow.client,
        port: flow.client_port,
    }
}

/// Notes a packet of the flow; `fin` is its direction's bit. Returns the backend whose
/// counted connection has ended with it; 0: none.
#[inline(always)]
fn touch(flow: &mut NatReturn, packet: &Packet, fin: u8, now: u32) -> u32 {
    // Only what differs is written: a busy flow's entry stays clean in every CPU's cache.
    if flow.last_seen != now {
        flow.last_seen = now;
    }
    // A flow that goes on after a RST was not reset: somebody forged it.
    let mut state = flow.state & !nat_state::RST;
    if packet.tcp_flags & tcp_flags::FIN != 0 {
        state |= fin;
    }
    if packet.tcp_flags & tcp_flags::RST != 0 {
        state |= nat_state::RST;
    }
    let mut uncounted = 0;
    if state & nat_state::COUNTED != 0 && ended(state) {
        state &= !nat_state::COUNTED;
        uncounted = flow.backend;
    }
    if flow.state != state {
        flow.state = state;
    }
    uncounted
}

/// Whether both sides have closed, or one has reset.
#[inline(always)]
fn ended(state: u8) -> bool {
    const FINISHED: u8 = nat_state::CLIENT_FIN | nat_state::BACKEND_FIN;
    state & nat_state::RST != 0 || state & FINISHED == FINISHED
}
