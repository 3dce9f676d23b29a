//! Copying an earlier agent's tables, where this one's are of another size or their entries must
//! say something else: once before the links are told of the new program, and what has come
//! since once more behind it.

use std::{collections::HashSet, io};

use aya::maps::MapData;
use lb_common::abi::{Flow, FlowKey, NatForward, NatReturn, Plain};

use super::super::{batch, janitor::Janitor};

/// Entries at a time.
const CHUNK: usize = 4096;

/// Tables that are to be copied, and what of them was.
pub(crate) struct Copies {
    pub(super) flows: Option<Table>,
    /// Both sides of translations.
    pub(super) translations: Option<[Table; 2]>,
    /// Indexes of source addresses here, by those of the earlier agent.
    pub(super) sources: Vec<Option<u32>>,
}

/// An earlier agent's table.
pub(super) struct Table {
    from: MapData,
    copied: HashSet<FlowKey>,
}

impl Table {
    pub(super) fn new(from: MapData) -> Self {
        Self {
            from,
            copied: HashSet::new(),
        }
    }

    /// Copies what was not copied yet, as `change` wants it; `None`: not at all. Where both have
    /// an entry, the earlier agent's holds: what packets have made of it since was a guess.
    fn copy<V: Plain>(&mut self, to: &MapData, change: impl Fn(V) -> Option<V>) -> io::Result<u64> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let Self { from, copied } = self;
        batch::visit(from.fd(), CHUNK, |key: &FlowKey, value: &V| {
            if copied.insert(*key)
                && let Some(value) = change(*value)
            {
                keys.push(*key);
                values.push(value);
            }
        })?;
        for (keys, values) in keys.chunks(CHUNK).zip(values.chunks(CHUNK)) {
            batch::update(to.fd(), keys, values)?;
        }
        Ok(keys.len() as u64)
    }
}

impl Copies {
    /// Copies what there is and was not copied yet.
    ///
    /// # Errors
    ///
    /// The kernel's, in particular where the tables are too small.
    pub(crate) fn copy(&mut self, janitor: &Janitor) -> io::Result<()> {
        if let Some(flows) = &mut self.flows {
            janitor.learn(flows.copy(&janitor.flows, |flow: Flow| Some(flow))?);
        }
        if let Some([forward, back]) = &mut self.translations {
            back.copy(&janitor.nat_return, |flow: NatReturn| Some(flow))?;
            let sources = &self.sources;
            forward.copy(&janitor.nat_forward, |flow: NatForward| {
                let index = *sources.get(flow.source_index as usize)?;
                Some(NatForward {
                    source_index: index?,
                    ..flow
                })
            })?;
        }
        Ok(())
    }
}
