//! Which backend a packet goes to.
//!
//! A stable slot answers alone: no flow is looked up and none is remembered, whatever the
//! packet. A change rewrites the `current` owner of the slots that it moves and sets their
//! `track`. On a tracked slot a TCP SYN goes to `current` and is remembered; any other packet
//! follows its remembered flow or, where none is remembered, belongs to `base`, the owner of
//! before the change: it goes there and is remembered too. [`crate::ring`] is the other half.
//!
//! Services whose choice does not follow from the slot alone (round robin, least connections,
//! random, client affinity) have every slot tracked for good.

use crate::{
    abi::{
        Affinity, AffinityKey, Backend, Flow, Service, algorithm, flow_state, ring_of,
        service_flags,
    },
    full_nat::LINGER_TICKS,
    packet::{Packet, TCP, tcp_flags},
    reason::Reason,
    rewrite::Endpoint,
    slot::Slot,
    steer::Stop,
    tables::Tables,
};

/// What [`tracked`] returns in place of a backend id where the flow's backend has died.
/// Above [`crate::slot::MAX_BACKEND`].
const DEAD: u32 = u32::MAX;

/// The backend of a `nat` or `dsr` packet.
///
/// # Errors
///
/// [`Reason::NoBackend`] where nobody takes the packet, [`Reason::BackendDead`] where it is of
/// a connection that died with its backend.
#[inline(always)]
pub(crate) fn choose<T: Tables>(
    tables: &T,
    packet: &Packet,
    index: u32,
    service: &Service,
) -> Result<u32, Stop> {
    let hash = hash(tables, packet, service);
    let Some(slot) = slot(tables, service, hash) else {
        return Err(no_backend(service, index));
    };
    let id = match slot.track() {
        false => slot.current(),
        // A copy: what others read from memory would be there for every packet.
        true => tracked(tables, &{ *packet }, index, service, {
            places(tables, packet, service, hash)
        }),
    };
    match id {
        0 => Err(no_backend(service, index)),
        DEAD => Err(stop(service, index, Reason::BackendDead)),
        id => Ok(id),
    }
}

/// The backend that has the flow of a `nat` or `dsr` packet, which its client may not have sent:
/// nothing is noted, and nothing begins.
///
/// # Errors
///
/// [`Stop::Pass`] where there is no such flow, or why nothing of it can be sent.
#[inline(always)]
pub(crate) fn held<T: Tables>(
    tables: &T,
    packet: &Packet,
    index: u32,
    service: &Service,
) -> Result<u32, Stop> {
    let hash = hash(tables, packet, service);
    let slot = slot(tables, service, hash).ok_or(Stop::Drop(index, Reason::NoBackend))?;
    let remembered = match slot.track() {
        true => {
            let now = tables.tick();
            let look = |flow: &mut Flow| is_live(flow, service, index, now).then_some(flow.backend);
            tables.with_flow(&packet.flow_key(), look).flatten()
        }
        false => None,
    };
    let base = || base(tables, service, places(tables, packet, service, hash));
    let id = match owner(packet.protocol, slot, remembered, base) {
        Owner::Slot(id) | Owner::Remembered(id) | Owner::Base(id) => id,
        Owner::Nobody => return Err(Stop::Pass),
    };
    living(tables, index, id)?;
    Ok(id)
}

/// Who has an open flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The owner of its slot, which is stable.
    Slot(u32),
    /// The backend that is remembered for it.
    Remembered(u32),
    /// The owner of its slot before the change that goes on.
    Base(u32),
    /// It is not open: its next packet begins another.
    Nobody,
}

/// Who has the flow of a slot for which a backend may be remembered; `base` is the owner of
/// before a change.
#[inline(always)]
pub fn owner(
    protocol: u8,
    slot: Slot,
    remembered: Option<u32>,
    base: impl FnOnce() -> u32,
) -> Owner {
    match (slot.track(), remembered) {
        (false, _) => Owner::Slot(slot.current()),
        (true, Some(id)) => Owner::Remembered(id),
        (true, None) if protocol == TCP => Owner::Base(base()),
        (true, None) => Owner::Nobody,
    }
}

/// Whether a flow's backend can be sent anything.
///
/// # Errors
///
/// [`Reason::NoBackend`] or [`Reason::BackendDead`].
#[inline(always)]
pub(crate) fn living<T: Tables>(tables: &T, index: u32, id: u32) -> Result<(), Stop> {
    let reason = match tables.backend(id) {
        Some(backend) if id != 0 && backend.family != 0 => match backend.dead() {
            false => return Ok(()),
            true => Reason::BackendDead,
        },
        _ => Reason::NoBackend,
    };
    Err(Stop::Drop(index, reason))
}

/// The backend of a new flow: the service's algorithm.
///
/// # Errors
///
/// [`Reason::NoBackend`].
#[inline(always)]
pub(crate) fn pick<T: Tables>(
    tables: &T,
    packet: &Packet,
    index: u32,
    service: &Service,
    hash: u64,
) -> Result<u32, Reason> {
    if service.affinity_ticks == 0 {
        return by_algorithm(tables, index, service, hash);
    }
    let key = AffinityKey {
        client: packet.source,
        service: index,
        family: packet.family,
        reserved: [0; 3],
    };
    let now = tables.tick();
    let bound = tables.affinity(&key).filter(|bound| {
        age(now, bound.last_seen) <= service.affinity_ticks
            && tables.backend(bound.backend).is_some_and(Backend::alive)
    });
    let backend = match bound {
        Some(bound) => bound.backend,
        None => by_algorithm(tables, index, service, hash)?,
    };
    let last_seen = now;
    tables.set_affinity(&key, &Affinity { backend, last_seen });
    Ok(backend)
}

/// Why a packet that nobody takes is dropped, and whether its sender is told.
#[inline(always)]
pub(crate) fn stop(service: &Service, index: u32, reason: Reason) -> Stop {
    let silent = match reason {
        Reason::BackendDead | Reason::UnknownFlow => service_flags::DIE_SILENTLY,
        _ => service_flags::REFUSE_SILENTLY,
    };
    match service.flags & silent {
        0 => Stop::Answer(index, reason),
        _ => Stop::Drop(index, reason),
    }
}

#[inline(always)]
fn no_backend(service: &Service, index: u32) -> Stop {
    stop(service, index, Reason::NoBackend)
}

/// The hash that finds the packet's slot.
#[inline(always)]
pub(crate) fn hash<T: Tables>(tables: &T, packet: &Packet, service: &Service) -> u64 {
    // Where all of the ports are hashed, as nearly always, the CPU need not wait for the service's
    // entry: it guesses the branch, not the mask.
    match service.hashed_ports {
        u32::MAX => hash_of(tables, packet, u32::MAX),
        some => hash_of(tables, packet, some),
    }
}

#[inline(always)]
fn hash_of<T: Tables>(tables: &T, packet: &Packet, hashed_ports: u32) -> u64 {
    tables.hash_key().flow(
        packet.family,
        &packet.source,
        &packet.destination,
        packet.ports & hashed_ports,
        packet.protocol,
    )
}

/// Both places of a packet's flow in the ring: in the lower half that of its slot, in the upper
/// that of the slot whose base has it if nobody remembers it.
#[inline(always)]
fn places<T: Tables>(tables: &T, packet: &Packet, service: &Service, hash: u64) -> u64 {
    let base = match service.base_hashed_ports == service.hashed_ports {
        true => hash,
        false => hash_of(tables, packet, service.base_hashed_ports),
    };
    (hash & u64::from(u32::MAX)) | (base << 32)
}

#[inline(always)]
fn slot<T: Tables>(tables: &T, service: &Service, place: u64) -> Option<Slot> {
    let (first, mask) = ring_of(service.ring);
    tables.slot(first | place as u32 & mask)
}

/// The owner of a flow that nobody remembers, by its [`places`].
#[inline(always)]
fn base<T: Tables>(tables: &T, service: &Service, places: u64) -> u32 {
    slot(tables, service, places >> 32).map_or(0, Slot::base)
}

/// The owner of new flows of the slot at a place.
#[inline(always)]
pub(crate) fn current<T: Tables>(tables: &T, service: &Service, place: u64) -> u32 {
    slot(tables, service, place).map_or(0, Slot::current)
}

#[inline(always)]
fn by_algorithm<T: Tables>(
    tables: &T,
    index: u32,
    service: &Service,
    hash: u64,
) -> Result<u32, Reason> {
    let place = match service.algorithm {
        algorithm::ROUND_ROBIN => u64::from(tables.next_turn(index)),
        algorithm::RANDOM => u64::from(tables.random()),
        _ => hash,
    };
    let first = current(tables, service, place);
    let id = match service.algorithm {
        algorithm::LEAST_CONNECTIONS => {
            let second = current(tables, service, u64::from(tables.random()));
            less_loaded(tables, first, second)
        }
        _ => first,
    };
    match id {
        0 => Err(Reason::NoBackend),
        id => Ok(id),
    }
}

/// The one of two backends with fewer connections for its weight.
#[inline(always)]
fn less_loaded<T: Tables>(tables: &T, first: u32, second: u32) -> u32 {
    // A fraction; that of one that is given no flows is infinite.
    let load = |id| match tables.backend(id).filter(|backend| backend.alive()) {
        Some(backend) => (tables.connections(id), u64::from(backend.weight)),
        None => (1, 0),
    };
    let ((here, weight), (there, other)) = (load(first), load(second));
    match here.wrapping_mul(other) <= there.wrapping_mul(weight) {
        true => first,
        false => second,
    }
}

/// [`choose`] on a tracked slot. A function of its own, for a stack frame of its own; its
/// result is a plain number because BPF's functions have five arguments and no more.
#[inline(never)]
fn tracked<T: Tables>(
    tables: &T,
    packet: &Packet,
    index: u32,
    service: &Service,
    places: u64,
) -> u32 {
    let now = tables.tick();
    let key = packet.flow_key();
    let seen = tables
        .with_flow(&key, |flow| {
            look(tables, flow, packet, (index, service), now)
        })
        .unwrap_or(Seen::NOTHING);
    if seen.ended != 0 {
        tables.count_connection(seen.ended, false);
    }
    if seen.backend != 0 {
        return seen.backend;
    }
    let old = packet.protocol == TCP && !packet.opens();
    let mut flow = Flow {
        backend: 0,
        service: index,
        last_seen: now,
        state: closing(packet),
        reserved: [0; 3],
    };
    if old && !seen.lost {
        flow.backend = base(tables, service, places);
        // What the dead left behind is not remembered: there may be any amount of it.
        let silent = service.flags & service_flags::DIE_SILENTLY != 0;
        if !silent && !usable(tables, flow.backend) {
            return if flow.backend == 0 { 0 } else { DEAD };
        }
    }
    if !usable(tables, flow.backend) {
        flow.backend = pick(tables, packet, index, service, places).unwrap_or(0);
        if flow.backend == 0 {
            return 0;
        }
        if packet.opens() {
            flow.state |= flow_state::OPENING;
        }
        if service.algorithm == algorithm::LEAST_CONNECTIONS {
            flow.state |= flow_state::COUNTED;
            tables.count_connection(flow.backend, true);
        }
    }
    tables.remember_flow(&key, &flow);
    flow.backend
}

/// What became of the flow that a packet may be of.
struct Seen {
    /// Where the packet goes for its sake: its backend, [`DEAD`], or 0: nowhere.
    backend: u32,
    /// A backend with which a counted connection ended; 0: none.
    ended: u32,
    /// The packet is of it, and its backend is no more: it is to go on with another.
    lost: bool,
}

impl Seen {
    /// There is no such flow.
    const NOTHING: Self = Self {
        backend: 0,
        ended: 0,
        lost: false,
    };
}

/// Looks at a remembered flow, and notes the packet if it is of it.
#[inline(always)]
fn look<T: Tables>(
    tables: &T,
    flow: &mut Flow,
    packet: &Packet,
    (index, service): (u32, &Service),
    now: u32,
) -> Seen {
    // A SYN after more than SYNs uses the numbers again: it is of another connection.
    let another = packet.opens() && flow.state & flow_state::OPENING == 0;
    let of_it = !another && is_live(flow, service, index, now);
    let lost = of_it && !usable(tables, flow.backend);
    let silent = service.flags & service_flags::DIE_SILENTLY != 0;
    let told = lost && !silent && packet.protocol == TCP && !packet.opens();
    let mut state = flow.state;
    if of_it {
        if !packet.opens() {
            state &= !flow_state::OPENING;
        }
        state |= closing(packet);
        // Only what differs is written: a busy flow's entry stays clean in every CPU's cache.
        if flow.last_seen != now {
            flow.last_seen = now;
        }
    }
    if told {
        state |= flow_state::CLOSED;
    }
    let ends = !of_it || lost || state & flow_state::CLOSED != 0;
    let ended = match ends && state & flow_state::COUNTED != 0 {
        true => {
            state &= !flow_state::COUNTED;
            flow.backend
        }
        false => 0,
    };
    if state != flow.state {
        flow.state = state;
    }
    let backend = match (told, of_it && !lost) {
        (true, _) => DEAD,
        (_, true) => flow.backend,
        _ => 0,
    };
    Seen {
        backend,
        ended,
        lost,
    }
}

/// A `nat` backend has ended a connection that is counted: it counts no more. A RST ends the
/// flow too; after a FIN its client may go on for as long as it likes.
#[inline(never)]
pub(crate) fn hang_up<T: Tables>(tables: &T, packet: &Packet, index: u32, service: &Service) {
    let client = Endpoint {
        address: packet.destination,
        port: packet.destination_port(),
    };
    let key = service.flow_key(client, packet.protocol);
    let reset = packet.tcp_flags & tcp_flags::RST != 0;
    let ended = tables.with_flow(&key, |flow| {
        let of_it = tables.backend(flow.backend).is_some_and(|backend| {
            (backend.address, backend.port) == (packet.source, packet.source_port())
        });
        if !of_it || flow.service != index || flow.state & flow_state::COUNTED == 0 {
            return 0;
        }
        flow.state &= !flow_state::COUNTED;
        if reset {
            // A SYN that was refused is not repeated: the next one is of another connection.
            flow.state = flow.state & !flow_state::OPENING | flow_state::CLOSED;
        }
        flow.backend
    });
    if let Some(id) = ended
        && id != 0
    {
        tables.count_connection(id, false);
    }
}

/// [`flow_state::CLOSED`] where the packet ends its connection.
#[inline(always)]
fn closing(packet: &Packet) -> u8 {
    match packet.ends() {
        false => 0,
        true => flow_state::CLOSED,
    }
}

/// Whether a backend takes the packets of its flows: also one that is given no new ones.
#[inline(always)]
fn usable<T: Tables>(tables: &T, id: u32) -> bool {
    id != 0
        && tables
            .backend(id)
            .is_some_and(|backend| backend.family != 0 && !backend.dead())
}

/// Whether a remembered flow is the service's, and not [`forgettable`].
#[inline(always)]
pub fn is_live(flow: &Flow, service: &Service, index: u32, now: u32) -> bool {
    flow.service == index && !forgettable(flow, service.idle_ticks, now)
}

/// Whether a remembered flow has ended, or gone quiet, for long enough to be forgotten.
#[inline(always)]
pub fn forgettable(flow: &Flow, idle_ticks: u32, now: u32) -> bool {
    let quiet = age(now, flow.last_seen);
    quiet > idle_ticks || (flow.state & flow_state::CLOSED != 0 && quiet > LINGER_TICKS)
}

/// Ticks from `then` to `now`; 0 where another CPU's clock is a tick ahead.
#[inline(always)]
pub fn age(now: u32, then: u32) -> u32 {
    match now.wrapping_sub(then) {
        ahead if ahead > u32::MAX / 2 => 0,
        age => age,
    }
}
