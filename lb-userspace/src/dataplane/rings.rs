//! Rings: each service's slots, a block of a segment.

use std::{
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::Context;
use lb_common::{
    maglev::{self, Member},
    ring::{Remember, Ring},
    slot::Slot,
};

use super::{
    pins::InheritedRing,
    segments::{Segments, Slots},
};

/// How long a ring that no service names any more is kept for packets that have read its
/// name before: far longer than any packet takes.
const GRACE: Duration = Duration::from_secs(1);

/// The rings, by the name of their service.
pub(crate) struct Rings {
    segments: Segments,
    by_service: BTreeMap<String, ServiceRing>,
    retired: Vec<(Instant, Slots)>,
    /// What an earlier agent's were, of services that have none yet.
    inherited: BTreeMap<String, InheritedRing>,
    /// Tables built so far.
    tables: u64,
}

/// What a service's ring is to be.
pub(crate) struct Wanted<'a> {
    /// The service's name.
    pub(crate) service: &'a str,
    /// The pool that it is made of.
    pub(crate) pool: &'a str,
    /// Slots in the order of turns, instead of by hash.
    pub(crate) in_turns: bool,
    /// Which flows are remembered.
    pub(crate) remember: Remember,
    /// [`lb_common::abi::Service::hashed_ports`].
    pub(crate) hashed_ports: u32,
    /// Whether connections of all that are dead go on elsewhere,
    pub(crate) silent: bool,
    /// and whether there may be any that do.
    pub(crate) buries: bool,
}

/// A service's ring.
pub(crate) struct ServiceRing {
    ring: Ring,
    slots: Slots,
    /// Slots of the table that the ring repeats,
    table: usize,
    /// and its number: rings of as many slots with the same have the same owners.
    number: u64,
    hashed_ports: u32,
    /// By which flows are found that nobody remembers.
    base_hashed_ports: u32,
    /// Slots that were changed since the janitor began to look at flows; `None` where it does
    /// not look.
    changed: Option<Vec<u32>>,
}

/// How many rings shrink at a time.
const AT_ONCE: usize = 256;

/// The tables of one pool, and what they change: its services do not each find out the same.
struct Tables {
    pool: String,
    members: Vec<Member>,
    /// By whether slots are in turns, and their number's logarithm.
    built: BTreeMap<(bool, u32), Rc<Table>>,
    /// What becomes of rings: by the numbers of their table and of the new one, and by the
    /// number of their slots.
    moves: BTreeMap<(u64, u64, usize), Moves>,
}

/// Slots and their new owners.
type Moves = Rc<Vec<(u32, u32)>>;

/// Owners of slots, and their number among all tables.
struct Table {
    number: u64,
    owners: Vec<u32>,
}

impl Rings {
    /// No ring yet.
    pub(crate) fn new(segments: Segments) -> Self {
        Self {
            segments,
            by_service: BTreeMap::new(),
            retired: Vec::new(),
            inherited: BTreeMap::new(),
            tables: 0,
        }
    }

    /// Has a service's ring, which is not there yet, go on where an earlier agent's has ended.
    pub(crate) fn inherit(&mut self, service: &str, ring: InheritedRing) {
        self.inherited.insert(service.to_owned(), ring);
    }

    /// The [`lb_common::abi::Service::ring`] of a service; 0 where it has none.
    pub(crate) fn word(&self, service: &str) -> u64 {
        self.by_service
            .get(service)
            .map_or(0, |ring| ring.slots.word())
    }

    /// [`lb_common::abi::Service::base_hashed_ports`] of a service.
    pub(crate) fn base_hashed_ports(&self, service: &str) -> Option<u32> {
        self.get(service).map(|ring| ring.base_hashed_ports)
    }

    /// A service's ring.
    pub(crate) fn get(&self, service: &str) -> Option<&ServiceRing> {
        self.by_service.get(service)
    }

    /// A service's ring, for the janitor.
    pub(crate) fn get_mut(&mut self, service: &str) -> Option<&mut ServiceRing> {
        self.by_service.get_mut(service)
    }

    /// Every ring.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut ServiceRing> {
        self.by_service.values_mut()
    }

    /// Makes rings what they are to be. A ring that is large enough is changed in place, slot
    /// by slot; the others are made anew beside the old ones, which packets go on using until
    /// the services name the new. What is larger than the pool needs repeats the table that it
    /// does need, until it can shrink.
    ///
    /// Services of one pool should follow each other: its table is built once for all.
    ///
    /// # Errors
    ///
    /// The kernel's, or no room left. Services before the one that failed are done.
    pub(crate) fn set<'a>(
        &mut self,
        wanted: impl Iterator<Item = Wanted<'a>>,
        members: impl Fn(&str) -> Vec<Member>,
        now: u32,
        lost: impl Fn(u32, bool) -> bool,
    ) -> anyhow::Result<()> {
        let mut tables: Option<Tables> = None;
        for wanted in wanted {
            let tables = match &mut tables {
                Some(tables) if tables.pool == wanted.pool => tables,
                tables => tables.insert(Tables {
                    pool: wanted.pool.to_owned(),
                    members: members(wanted.pool),
                    built: BTreeMap::new(),
                    moves: BTreeMap::new(),
                }),
            };
            let old = self.by_service.get_mut(wanted.service);
            let log2 = maglev::log2_slots(tables.members.len());
            let table = tables.get(wanted.in_turns, log2, &mut self.tables);
            match old {
                Some(old) if old.log2_slots() >= log2 => {
                    let moves = tables.moves(old, &table);
                    old.change(&wanted, &table, &moves, now, &lost);
                }
                old => {
                    let inherited = self.inherited.remove(wanted.service);
                    let owners = &table.owners;
                    let (ring, hashed_ports) = match (old, inherited) {
                        (Some(old), _) => (
                            old.ring.grown(owners, now),
                            [old.hashed_ports, old.base_hashed_ports],
                        ),
                        (None, Some(inherited)) => (
                            inherited.resume(owners, wanted.remember, now),
                            inherited.hashed_ports,
                        ),
                        (None, None) => (
                            Ring::new(owners, wanted.remember, now),
                            [wanted.hashed_ports; 2],
                        ),
                    };
                    let moves = ring.moves(owners);
                    let mut ring =
                        ServiceRing::new(&mut self.segments, ring, table.number, hashed_ports)
                            .with_context(|| format!("making the ring of {}", wanted.service))?;
                    ring.change(&wanted, &table, &moves, now, &lost);
                    self.put(wanted.service, ring);
                }
            }
        }
        Ok(())
    }

    /// Puts a service's ring in the place of its old one.
    fn put(&mut self, service: &str, ring: ServiceRing) {
        if let Some(old) = self.by_service.insert(service.to_owned(), ring) {
            self.retired.push((Instant::now() + GRACE, old.slots));
        }
    }

    /// Makes rings as small as their pools need, where no flow would notice: some of them at a
    /// time. Returns whose, and their words, which services are to name instead of the old.
    ///
    /// # Errors
    ///
    /// The kernel's, or no room left.
    pub(crate) fn shrink(&mut self) -> anyhow::Result<Vec<(String, u64)>> {
        let rings = self.by_service.iter();
        let small = rings
            .filter_map(|(name, old)| Some((name, old.ring.shrunk(old.table)?, old)))
            .map(|(name, ring, old)| (name.clone(), ring, old.number, old.hashed_ports));
        let small: Vec<_> = small.take(AT_ONCE).collect();
        let mut words = Vec::new();
        for (service, ring, number, hashed_ports) in small {
            let ring = ServiceRing::new(&mut self.segments, ring, number, [hashed_ports; 2])
                .with_context(|| format!("making the ring of {service}"))?;
            let word = ring.slots.word();
            self.put(&service, ring);
            words.push((service, word));
        }
        Ok(words)
    }

    /// Has unremembered connections of the lost go on to another backend.
    pub(crate) fn bury(&mut self, service: &str, lost: impl Fn(u32) -> bool) {
        if let Some(ring) = self.by_service.get_mut(service) {
            ring.bury(lost);
        }
    }

    /// Has the table be the base of what this node has changed since `start`: see [`Ring::begin`].
    pub(crate) fn begin(&mut self, service: &str, start: u32, now: u32) {
        if let Some(ring) = self.by_service.get_mut(service) {
            let (ring, write) = ring.writing();
            ring.begin(start, now, write);
        }
    }

    /// Forgets the ring of a service. Nothing may name it.
    pub(crate) fn remove(&mut self, service: &str) {
        if let Some(ring) = self.by_service.remove(service) {
            self.retired.push((Instant::now() + GRACE, ring.slots));
        }
    }

    /// Frees rings that no packet can be using any more.
    pub(crate) fn collect(&mut self) {
        let now = Instant::now();
        for (_, slots) in self.retired.extract_if(.., |(usable, _)| *usable <= now) {
            self.segments.give_back(slots);
        }
    }
}

impl InheritedRing {
    /// The ring as the earlier agent would have gone on with it, large enough for these owners.
    fn resume(&self, owners: &[u32], remember: Remember, now: u32) -> Ring {
        let mut ring = Ring::resumed(&self.slots, remember, now);
        let [hashed_ports, base_hashed_ports] = self.hashed_ports;
        if hashed_ports != base_hashed_ports {
            ring.rehash(now, |_, _| {});
        }
        match owners.len() > self.slots.len() {
            true => ring.grown(owners, now),
            false => ring,
        }
    }
}

impl Tables {
    /// The table of so many slots; `last` numbers those that are built.
    fn get(&mut self, in_turns: bool, log2_slots: u32, last: &mut u64) -> Rc<Table> {
        let members = &self.members;
        let build = || {
            *last += 1;
            let owners = match in_turns {
                true => maglev::in_turns(members, log2_slots),
                false => maglev::build(members, log2_slots),
            };
            let number = *last;
            Rc::new(Table { number, owners })
        };
        let built = self.built.entry((in_turns, log2_slots));
        built.or_insert_with(build).clone()
    }

    /// Which of a ring's slots a table gives another owner.
    fn moves(&mut self, ring: &ServiceRing, table: &Table) -> Moves {
        let key = (ring.number, table.number, ring.ring.slots().len());
        let find = || Rc::new(ring.ring.moves(&table.owners));
        self.moves.entry(key).or_insert_with(find).clone()
    }
}

impl ServiceRing {
    fn new(
        segments: &mut Segments,
        ring: Ring,
        number: u64,
        [hashed_ports, base_hashed_ports]: [u32; 2],
    ) -> anyhow::Result<Self> {
        let slots = segments.take(ring.slots().len().trailing_zeros())?;
        for (index, &slot) in ring.slots().iter().enumerate() {
            slots.write(index, slot);
        }
        Ok(Self {
            table: ring.slots().len(),
            number,
            ring,
            slots,
            hashed_ports,
            base_hashed_ports,
            changed: None,
        })
    }

    /// Number of slots, as a power of two.
    pub(crate) fn log2_slots(&self) -> u32 {
        self.ring.slots().len().trailing_zeros()
    }

    /// `moves`: see [`Tables::moves`].
    fn change(
        &mut self,
        wanted: &Wanted<'_>,
        table: &Table,
        moves: &[(u32, u32)],
        now: u32,
        lost: &impl Fn(u32, bool) -> bool,
    ) {
        let hash_changes = self.hashed_ports != wanted.hashed_ports;
        let (ring, mut write) = self.writing();
        ring.set_remember(wanted.remember, now, &mut write);
        if hash_changes {
            ring.rehash(now, &mut write);
        }
        ring.make(moves, now, &mut write);
        // It looks at every slot.
        if wanted.buries {
            ring.bury(|id| lost(id, wanted.silent), &mut write);
        }
        drop(write);
        self.table = table.owners.len();
        self.number = table.number;
        self.hashed_ports = wanted.hashed_ports;
        self.end_rehash();
    }

    /// Once nobody is left whom the old hash finds, the new one is the base's too.
    fn end_rehash(&mut self) {
        if !self.ring.is_rehashed() {
            self.base_hashed_ports = self.hashed_ports;
        }
    }

    fn bury(&mut self, lost: impl Fn(u32) -> bool) {
        let (ring, write) = self.writing();
        ring.bury(lost, write);
    }

    /// The ring, and what writes its changes where packets see them.
    fn writing(&mut self) -> (&mut Ring, impl FnMut(usize, Slot)) {
        let Self {
            ring,
            slots,
            changed,
            ..
        } = self;
        let write = move |index: usize, slot: Slot| {
            slots.write(index, slot);
            if let Some(changed) = changed {
                changed.push(index as u32);
            }
        };
        (ring, write)
    }

    /// The slot of a flow with this hash.
    pub(crate) fn slot_of(&self, hash: u64) -> (usize, Slot) {
        let index = hash as usize & (self.ring.slots().len() - 1);
        (index, self.slots.read(index))
    }

    /// Hash over the owners of new flows, by what they are to every node.
    pub(crate) fn digest(&self, identity: impl Fn(u32) -> u64) -> u64 {
        let table = &self.ring.slots()[..self.table];
        maglev::digest(table.iter().map(|slot| identity(slot.current())))
    }

    /// Number of slots, and of those whose flows are remembered.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.ring.slots().len(), self.ring.tracked())
    }

    /// Slots that changes have moved: see [`Ring::moved`].
    pub(crate) fn moved(&self) -> impl Iterator<Item = (usize, Slot, u32)> {
        self.ring.moved()
    }

    /// Tracks a slot of another node's ring, which may be larger or smaller, as that node does.
    /// Of a larger ring's slots that are one here, the first says whose the others' flows are.
    pub(crate) fn adopt(&mut self, log2_slots: u32, slot: u32, base: u32, since: u32) {
        let slots = self.ring.slots().len();
        let step = 1usize << log2_slots.min(usize::BITS - 1);
        let (ring, mut write) = self.writing();
        for index in (slot as usize & (slots - 1)..slots).step_by(step) {
            ring.adopt(index, base, since, &mut write);
        }
    }

    /// Has a remembered flow with this hash and backend be found: see [`Ring::find`].
    pub(crate) fn find(&mut self, hash: u64, backend: u32, now: u32) {
        let index = hash as usize & (self.ring.slots().len() - 1);
        let (ring, write) = self.writing();
        ring.find(index, backend, now, write);
    }

    /// The janitor begins to look at flows.
    pub(crate) fn begin_pass(&mut self) {
        self.changed = Some(Vec::new());
    }

    /// The janitor has looked at all flows: `flows` are the live ones of this service, by hash
    /// and backend.
    pub(crate) fn end_pass(&mut self, flows: &[(u64, u32)], idle_ticks: u32, now: u32) {
        // Made meanwhile: the next pass is its first.
        let Some(changed) = self.changed.take() else {
            return;
        };
        let Self { ring, slots, .. } = self;
        if ring.tracked() == 0 {
            return;
        }
        let mask = ring.slots().len() - 1;
        let mut elsewhere = vec![false; ring.slots().len()];
        for index in changed {
            elsewhere[index as usize] = true;
        }
        for &(hash, backend) in flows {
            let index = hash as usize & mask;
            elsewhere[index] |= backend != ring.slots()[index].current();
        }
        let mut write = |index: usize, slot: Slot| slots.write(index, slot);
        ring.settle(idle_ticks, now, &mut write);
        ring.release(|index| elsewhere[index], &mut write);
        self.end_rehash();
    }
}
