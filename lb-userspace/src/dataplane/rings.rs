//! Rings: the Maglev table of a pool, in an array of its own that packets reach through the
//! map of maps `RINGS`. All services of a pool share its ring.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use anyhow::Context;
use aya::maps::MapData;
use lb_common::{
    abi::ring_word,
    maglev::{self, Member},
    slot::Slot,
};

use super::{batch, ids::Ids, mapped::MappedArray};

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_F_INNER_MAP: u32 = 1 << 12;

/// How long a ring that no service names any more is kept for packets that have read its
/// name before: far longer than any packet takes.
const GRACE: Duration = Duration::from_secs(1);

/// The outer map and the rings in it.
pub(crate) struct Rings {
    outer: MapData,
    ids: Ids,
    by_pool: BTreeMap<String, Ring>,
    retired: Vec<(Instant, u32)>,
}

struct Ring {
    index: u32,
    log2_slots: u32,
    members: Vec<Member>,
    table: Vec<u32>,
    slots: MappedArray<u64>,
}

impl Rings {
    /// Rings in `outer`, at most `limit` of them at a time.
    pub(crate) fn new(outer: MapData, limit: u32) -> Self {
        Self {
            outer,
            ids: Ids::new(limit - 1),
            by_pool: BTreeMap::new(),
            retired: Vec::new(),
        }
    }

    /// The [`lb_common::abi::Service::ring`] of a pool; 0 where it has none.
    pub(crate) fn word(&self, pool: &str) -> u64 {
        self.by_pool
            .get(pool)
            .map_or(0, |ring| ring_word(ring.index, ring.log2_slots))
    }

    /// Makes the rings of these pools hold their members. A ring that keeps its size is
    /// changed in place, slot by slot; the others are made anew beside the old ones, which
    /// packets go on using until the services name the new.
    ///
    /// # Errors
    ///
    /// The kernel's, or no index left. Pools before the one that failed are done.
    pub(crate) fn set<'a>(
        &mut self,
        pools: impl Iterator<Item = (&'a str, Vec<Member>)>,
    ) -> anyhow::Result<()> {
        let mut made = Vec::new();
        for (pool, members) in pools {
            let log2_slots = maglev::log2_slots(members.len());
            match self.by_pool.get_mut(pool) {
                Some(ring) if ring.members == members => {}
                Some(ring) if ring.log2_slots == log2_slots => ring.change(members),
                _ => {
                    let index = self
                        .ids
                        .take(Instant::now())
                        .context("no index is left for another ring")?;
                    let (ring, array) = Ring::new(index, log2_slots, members)
                        .with_context(|| format!("making the ring of pool {pool}"))?;
                    made.push((pool.to_owned(), ring, array));
                }
            }
        }
        let indexes: Vec<u32> = made.iter().map(|(_, ring, _)| ring.index).collect();
        let fds: Vec<u32> = made
            .iter()
            .map(|(.., array)| array.fd().as_fd().as_raw_fd() as u32)
            .collect();
        batch::update(self.outer.fd(), &indexes, &fds).context("publishing rings")?;
        for (pool, ring, _) in made {
            if let Some(old) = self.by_pool.insert(pool, ring) {
                self.retired.push((Instant::now() + GRACE, old.index));
            }
        }
        Ok(())
    }

    /// Forgets the rings of pools that are not to be kept. No service may name them.
    pub(crate) fn keep(&mut self, keep: impl Fn(&str) -> bool) {
        let usable = Instant::now() + GRACE;
        self.by_pool.retain(|pool, ring| {
            let kept = keep(pool);
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

impl Ring {
    fn new(index: u32, log2_slots: u32, members: Vec<Member>) -> anyhow::Result<(Self, MapData)> {
        let slots = 1 << log2_slots;
        let array = MapData::create(
            aya_obj::Map::new_from_params(
                BPF_MAP_TYPE_ARRAY,
                size_of::<u32>() as u32,
                size_of::<u64>() as u32,
                slots,
                BPF_F_MMAPABLE | BPF_F_INNER_MAP,
            ),
            "weir_ring",
            None,
        )?;
        let mut ring = Self {
            index,
            log2_slots,
            members: Vec::new(),
            table: vec![0; slots as usize],
            slots: MappedArray::new(array.fd(), slots)?,
        };
        ring.change(members);
        Ok((ring, array))
    }

    fn change(&mut self, members: Vec<Member>) {
        let table = maglev::build(&members, self.log2_slots);
        for (index, (&old, &new)) in self.table.iter().zip(&table).enumerate() {
            if old != new {
                self.slots.write(index as u32, &Slot::stable(new).0);
            }
        }
        self.table = table;
        self.members = members;
    }
}
