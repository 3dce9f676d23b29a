//! The slots of all rings: a row of segments of one size, of which every ring has a block. The
//! first are in `SLOTS`, a table of the program's; the others are arrays that packets reach through
//! the map of maps `SEGMENTS`. One size, because the kernel turns a look into such arrays into a
//! few instructions, and one into arrays of any size into a call; segments, because memory is then
//! taken as rings come.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use aya::maps::MapData;
use lb_common::{
    abi::{LOG2_SEGMENT, SEGMENT_SLOTS, ring_word},
    slot::Slot,
};

use super::{
    batch,
    buddies::Buddies,
    mapped::{self, MappedArray},
};

/// The segments, and which slots are free.
pub(crate) struct Segments {
    /// The first.
    direct: Arc<MappedArray<u64>>,
    outer: MapData,
    limit: u32,
    arrays: BTreeMap<u32, Arc<MappedArray<u64>>>,
    free: Buddies<{ LOG2_SEGMENT as usize + 1 }>,
}

/// The slots of a ring, written in place.
pub(crate) struct Slots {
    first: u32,
    log2: u32,
    array: Arc<MappedArray<u64>>,
}

impl Segments {
    /// Those in `direct`, which is `SLOTS`, and at most `limit` in all, the others in `outer`, which
    /// is empty.
    pub(crate) fn new(direct: MappedArray<u64>, outer: MapData, limit: u32) -> Self {
        Self {
            direct: Arc::new(direct),
            outer,
            limit,
            arrays: BTreeMap::new(),
            free: Buddies::new(),
        }
    }

    /// Takes `1 << log2` slots, of any content.
    ///
    /// # Errors
    ///
    /// The kernel's, or no segment left.
    pub(crate) fn take(&mut self, log2: u32) -> anyhow::Result<Slots> {
        ensure!(log2 <= LOG2_SEGMENT, "a ring is larger than a segment");
        let first = loop {
            // The first segment is never whole: one of the largest needs a second.
            match self.free.take(log2 as usize) {
                Some(first) => break first,
                None => self.add().context("making room for slots")?,
            }
        };
        let array = &self.arrays[&(first >> LOG2_SEGMENT)];
        Ok(Slots {
            first,
            log2,
            array: array.clone(),
        })
    }

    /// Frees slots that no packet can be using any more, and a segment where none is used.
    pub(crate) fn give_back(&mut self, slots: Slots) {
        let Some(first) = self.free.give_back(slots.first, slots.log2 as usize) else {
            return;
        };
        let index = first >> LOG2_SEGMENT;
        let deleted = match self.is_direct(index) {
            true => Ok(()),
            false => batch::delete(self.outer.fd(), &index),
        };
        match deleted {
            Ok(()) => {
                self.free.forget(first);
                self.arrays.remove(&index);
            }
            Err(error) => tracing::warn!("freeing segment {index}: {error}"),
        }
    }

    fn add(&mut self) -> anyhow::Result<()> {
        let index = (0..self.limit)
            .find(|index| !self.arrays.contains_key(index))
            .context("no segment is left")?;
        let slots = match self.is_direct(index) {
            true => self.direct.clone(),
            false => Arc::new(self.make(index)?),
        };
        self.arrays.insert(index, slots);
        self.free
            .give_back(index << LOG2_SEGMENT, LOG2_SEGMENT as usize);
        if index == 0 {
            // The slot that packets of a service without a ring look at belongs to nobody.
            self.free.take(0);
        }
        Ok(())
    }

    fn is_direct(&self, index: u32) -> bool {
        index << LOG2_SEGMENT < self.direct.entries()
    }

    fn make(&self, index: u32) -> anyhow::Result<MappedArray<u64>> {
        let (array, slots) = mapped::words("weir_slots", SEGMENT_SLOTS)?;
        let fd = array.fd().as_fd().as_raw_fd() as u32;
        batch::update(self.outer.fd(), &[index], &[fd])?;
        Ok(slots)
    }
}

impl Slots {
    /// The [`lb_common::abi::Service::ring`] of a ring of these slots.
    pub(crate) fn word(&self) -> u64 {
        ring_word(self.first, self.log2)
    }

    /// Writes the ring's slot at an index.
    ///
    /// # Panics
    ///
    /// Where the ring has no such slot.
    pub(crate) fn write(&self, index: usize, slot: Slot) {
        self.array.write(self.place(index), &slot.0);
    }

    /// The ring's slot at an index.
    ///
    /// # Panics
    ///
    /// As [`Slots::write`].
    pub(crate) fn read(&self, index: usize) -> Slot {
        Slot(self.array.read(self.place(index)))
    }

    fn place(&self, index: usize) -> u32 {
        assert!(index < 1 << self.log2, "out of range");
        // An array is one segment or all of the first.
        self.first % self.array.entries() + index as u32
    }
}
