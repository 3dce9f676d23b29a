//! Rings: each service's slots, in an array of their own that packets reach through the map
//! of maps `RINGS`.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::Context;
use aya::maps::MapData;
use lb_common::{
    abi::ring_word,
    maglev::{self, Member},
    ring::{Remember, Ring},
    slot::Slot,
};

use super::{batch, ids::Ids, mapped::MappedArray};

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_F_INNER_MAP: u32 = 1 << 12;

/// How long a ring that no service names any more is kept for packets that have read its
/// name before: far longer than any packet takes.
const GRACE: Duration = Duration::from_secs(1);

/// The outer map and the rings in it, by the name of their service.
pub(crate) struct Rings {
    outer: MapData,
    ids: Ids,
    by_service: BTreeMap<String, ServiceRing>,
    retired: Vec<(Instant, u32)>,
}

/// What a service's ring is to be.
pub(crate) struct Wanted<'a> {
    /// The service's name.
    pub(crate) service: &'a str,
    /// The pool that it is made of.
    pub(crate) pool: &'a str,
    /// That pool's backends that take new flows.
    pub(crate) members: &'a [Member],
    /// Slots in the order of turns, instead of by hash.
    pub(crate) in_turns: bool,
    /// Which flows are remembered.
    pub(crate) remember: Remember,
    /// Whether connections of the dead go on elsewhere.
    pub(crate) silent: bool,
}

/// A service's ring.
pub(crate) struct ServiceRing {
    index: u32,
    ring: Ring,
    slots: MappedArray<u64>,
    /// Slots that were changed since the janitor began to look at flows.
    changed: Vec<bool>,
}

/// Tables of this round, so that services of one pool do not each build the same.
type Tables = BTreeMap<(String, bool, u32), Rc<Vec<u32>>>;

impl Rings {
    /// Rings in `outer`, at most `limit` of them at a time.
    pub(crate) fn new(outer: MapData, limit: u32) -> Self {
        Self {
            outer,
            ids: Ids::new(limit - 1),
            by_service: BTreeMap::new(),
            retired: Vec::new(),
        }
    }

    /// The [`lb_common::abi::Service::ring`] of a service; 0 where it has none.
    pub(crate) fn word(&self, service: &str) -> u64 {
        self.by_service
            .get(service)
            .map_or(0, |ring| ring_word(ring.index, ring.log2_slots()))
    }

    /// A service's ring.
    pub(crate) fn get(&self, service: &str) -> Option<&ServiceRing> {
        self.by_service.get(service)
    }

    /// A service's ring, for the janitor.
    pub(crate) fn get_mut(&mut self, service: &str) -> Option<&mut ServiceRing> {
        self.by_service.get_mut(service)
    }

    /// Every ring, by its service.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut ServiceRing)> {
        self.by_service
            .iter_mut()
            .map(|(name, ring)| (name.as_str(), ring))
    }

    /// Makes rings what they are to be. A ring that is large enough is changed in place, slot
    /// by slot; the others are made anew beside the old ones, which packets go on using until
    /// the services name the new. Rings do not shrink: two slots that became one could not
    /// say whose both their flows are.
    ///
    /// # Errors
    ///
    /// The kernel's, or no index left. Services before the one that failed are done.
    pub(crate) fn set<'a>(
        &mut self,
        wanted: impl Iterator<Item = Wanted<'a>>,
        now: u32,
        dead: impl Fn(u32) -> bool,
    ) -> anyhow::Result<()> {
        let mut tables = Tables::new();
        let mut made = Vec::new();
        for wanted in wanted {
            let old = self.by_service.get_mut(wanted.service);
            let log2 = maglev::log2_slots(wanted.members.len());
            let log2 = old.as_ref().map_or(log2, |old| old.log2_slots().max(log2));
            let key = (wanted.pool.to_owned(), wanted.in_turns, log2);
            let build = || Rc::new(owners(&wanted, log2));
            let owners = tables.entry(key).or_insert_with(build).clone();
            match old {
                Some(old) if old.log2_slots() == log2 => old.change(&wanted, &owners, now, &dead),
                old => {
                    let ring = match old {
                        Some(old) => old.ring.grown(&owners, now),
                        None => Ring::new(&owners, wanted.remember, now),
                    };
                    let index = self
                        .ids
                        .take(Instant::now())
                        .context("no index is left for another ring")?;
                    let (mut ring, array) = ServiceRing::new(index, ring)
                        .with_context(|| format!("making the ring of {}", wanted.service))?;
                    ring.change(&wanted, &owners, now, &dead);
                    made.push((wanted.service.to_owned(), ring, array));
                }
            }
        }
        let indexes: Vec<u32> = made.iter().map(|(_, ring, _)| ring.index).collect();
        let fds: Vec<u32> = made
            .iter()
            .map(|(.., array)| array.fd().as_fd().as_raw_fd() as u32)
            .collect();
        batch::update(self.outer.fd(), &indexes, &fds).context("publishing rings")?;
        for (service, ring, _) in made {
            if let Some(old) = self.by_service.insert(service, ring) {
                self.retired.push((Instant::now() + GRACE, old.index));
            }
        }
        Ok(())
    }

    /// Forgets the rings of services that are not to be kept. Nothing may name them.
    pub(crate) fn keep(&mut self, keep: impl Fn(&str) -> bool) {
        let usable = Instant::now() + GRACE;
        self.by_service.retain(|service, ring| {
            let kept = keep(service);
            if !kept {
                self.retired.push((usable, ring.index));
            }
            kept
        });
    }

    /// Frees rings that no packet can be using any more.
    pub(crate) fn collect(&mut self) {
        let now = Instant::now();
        self.retired.retain(|&(usable, index)| {
            if usable > now {
                return true;
            }
            if let Err(error) = batch::delete(self.outer.fd(), &index) {
                tracing::warn!("freeing ring {index}: {error}");
            }
            self.ids.give_back(index, now, Duration::ZERO);
            false
        });
    }
}

fn owners(wanted: &Wanted<'_>, log2_slots: u32) -> Vec<u32> {
    match wanted.in_turns {
        true => maglev::in_turns(wanted.members, log2_slots),
        false => maglev::build(wanted.members, log2_slots),
    }
}

impl ServiceRing {
    fn new(index: u32, ring: Ring) -> anyhow::Result<(Self, MapData)> {
        let entries = ring.slots().len() as u32;
        let array = MapData::create(
            aya_obj::Map::new_from_params(
                BPF_MAP_TYPE_ARRAY,
                size_of::<u32>() as u32,
                size_of::<u64>() as u32,
                entries,
                BPF_F_MMAPABLE | BPF_F_INNER_MAP,
            ),
            "weir_ring",
            None,
        )?;
        let slots = MappedArray::new(array.fd(), entries)?;
        for (index, slot) in (0..).zip(ring.slots()) {
            slots.write(index, &slot.0);
        }
        let changed = vec![true; ring.slots().len()];
        let ring = Self {
            index,
            ring,
            slots,
            changed,
        };
        Ok((ring, array))
    }

    fn log2_slots(&self) -> u32 {
        self.ring.slots().len().trailing_zeros()
    }

    fn change(
        &mut self,
        wanted: &Wanted<'_>,
        owners: &[u32],
        now: u32,
        dead: &impl Fn(u32) -> bool,
    ) {
        let Self {
            ring,
            slots,
            changed,
            ..
        } = self;
        let mut write = |index: usize, slot: Slot| {
            slots.write(index as u32, &slot.0);
            changed[index] = true;
        };
        ring.set_remember(wanted.remember, now, &mut write);
        ring.change(owners, now, &mut write);
        if wanted.silent {
            ring.bury(dead, &mut write);
        }
    }

    /// The slot of a flow with this hash.
    pub(crate) fn slot_of(&self, hash: u64) -> (usize, Slot) {
        let index = hash as usize & (self.ring.slots().len() - 1);
        (index, Slot(self.slots.read(index as u32)))
    }

    /// The owner of each slot's new flows.
    pub(crate) fn owners(&self) -> impl Iterator<Item = u32> {
        self.ring.slots().iter().map(|slot| slot.current())
    }

    /// Number of slots, and of those whose flows are remembered.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let slots = self.ring.slots();
        (
            slots.len(),
            slots.iter().filter(|slot| slot.track()).count(),
        )
    }

    /// The janitor begins to look at flows.
    pub(crate) fn begin_pass(&mut self) {
        self.changed.fill(false);
    }

    /// The janitor has looked at all flows: `flows` are the live ones of this service, by hash
    /// and backend.
    pub(crate) fn end_pass(&mut self, flows: &[(u64, u32)], idle_ticks: u32, now: u32) {
        let Self {
            ring,
            slots,
            changed,
            ..
        } = self;
        let mask = ring.slots().len() - 1;
        let mut elsewhere = changed.clone();
        for &(hash, backend) in flows {
            let index = hash as usize & mask;
            elsewhere[index] |= backend != ring.slots()[index].current();
        }
        let mut write = |index: usize, slot: Slot| slots.write(index as u32, &slot.0);
        ring.settle(idle_ticks, now, &mut write);
        ring.release(|index| elsewhere[index], &mut write);
    }
}
