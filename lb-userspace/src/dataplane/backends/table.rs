//! Backends as packets see them, by id: the first in a table of the program's, the others in an
//! array.

use lb_common::abi::{Backend, direct::BACKENDS};

use super::super::mapped::MappedArray;

/// Both.
pub(crate) struct BackendTable {
    first: MappedArray<Backend>,
    more: MappedArray<Backend>,
}

impl BackendTable {
    /// How many entries the one, a power of two, and the other have, where ids go up to `limit`.
    pub(crate) fn lengths(limit: u32) -> (u32, u32) {
        // No array has none.
        let more = limit.saturating_sub(BACKENDS - 1).max(1);
        ((limit + 1).next_power_of_two().min(BACKENDS), more)
    }

    /// The maps `BACKENDS` and `MORE_BACKENDS`.
    pub(crate) fn new(first: MappedArray<Backend>, more: MappedArray<Backend>) -> Self {
        Self { first, more }
    }

    /// Writes a backend: see [`MappedArray::write`].
    pub(crate) fn write(&self, id: u32, backend: &Backend) {
        let (array, index) = self.place(id);
        array.write(index, backend);
    }

    /// A backend: see [`MappedArray::read`].
    pub(crate) fn read(&self, id: u32) -> Backend {
        let (array, index) = self.place(id);
        array.read(index)
    }

    fn place(&self, id: u32) -> (&MappedArray<Backend>, u32) {
        match id.checked_sub(BACKENDS) {
            None => (&self.first, id),
            Some(index) => (&self.more, index),
        }
    }
}
