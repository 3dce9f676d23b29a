//! A hash map of endpoints, and the array in front of it that packets look at first.

use std::collections::BTreeMap;

use anyhow::Context as _;
use aya::maps::{HashMap, MapData};
use lb_common::{
    abi::{Front, ServiceKey},
    front::{self, ABSENT, SHARED},
};

use super::{mapped::MappedArray, raw::Raw};

/// Both, and what they hold.
pub(crate) struct Keys {
    map: HashMap<MapData, Raw<ServiceKey>, u32>,
    front: MappedArray<Front>,
    held: BTreeMap<ServiceKey, u32>,
    /// Keys by their place in the array.
    places: BTreeMap<u32, Vec<ServiceKey>>,
}

impl Keys {
    /// An empty map, and an empty array of a power of two of entries.
    pub(crate) fn new(
        map: HashMap<MapData, Raw<ServiceKey>, u32>,
        front: MappedArray<Front>,
    ) -> Self {
        Self {
            map,
            front,
            held: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    /// Makes the map hold `new`, and nothing else.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn hold(&mut self, new: BTreeMap<ServiceKey, u32>) -> anyhow::Result<()> {
        for (key, value) in &new {
            if self.held.get(key) != Some(value) {
                // The map first: the array may say "ask it" at any moment.
                self.map.insert(Raw(*key), value, 0).context("insertion")?;
                self.held.insert(*key, *value);
                self.place(key);
            }
        }
        let gone: Vec<ServiceKey> = self
            .held
            .keys()
            .filter(|key| !new.contains_key(key))
            .copied()
            .collect();
        for key in gone {
            self.held.remove(&key);
            self.place(&key);
            self.map.remove(&Raw(key)).context("removal")?;
        }
        Ok(())
    }

    /// Makes the array's entry for a key say what is held.
    fn place(&mut self, key: &ServiceKey) {
        if key.protocol == 0 {
            // Asked for rarely, and of the map alone.
            return;
        }
        let place = front::place(key, self.front.entries() - 1);
        let keys = self.places.entry(place).or_default();
        keys.retain(|other| other != key);
        if self.held.contains_key(key) {
            keys.push(*key);
        }
        let old = self.front.read(place);
        let only = match keys.as_slice() {
            [only] => self.held.get(only).map(|value| front::entry(only, *value)),
            _ => None,
        };
        let word = if keys.is_empty() { ABSENT } else { SHARED };
        if keys.is_empty() {
            self.places.remove(&place);
        }
        // A packet must not find the new address under the old word.
        self.front.write(place, &Front { word, ..old });
        if let Some(entry) = only {
            self.front.write(place, &entry);
        }
    }
}
