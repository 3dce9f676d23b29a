//! A hash map of endpoints, and the array in front of it that packets look at first.

use std::{collections, io::ErrorKind};

use anyhow::Context as _;
use aya::maps::{HashMap, MapData, MapError};
use lb_common::{
    abi::{Front, ServiceKey},
    front::{self, ABSENT, SHARED},
};

use super::{mapped::MappedArray, raw::Raw};

/// Both, and what they hold.
pub(crate) struct Keys {
    /// The map's name, for people.
    name: &'static str,
    map: HashMap<MapData, Raw<ServiceKey>, u32>,
    front: MappedArray<Front>,
    held: collections::HashMap<ServiceKey, u32>,
    /// Keys that the kernel did not take, and what it said last.
    refused: Vec<ServiceKey>,
    error: Option<anyhow::Error>,
    /// Keys by their place in the array.
    places: collections::HashMap<u32, Vec<ServiceKey>>,
}

impl Keys {
    /// An empty map, and an empty array of a power of two of entries.
    pub(crate) fn new(
        name: &'static str,
        map: HashMap<MapData, Raw<ServiceKey>, u32>,
        front: MappedArray<Front>,
    ) -> Self {
        Self {
            name,
            map,
            front,
            held: collections::HashMap::new(),
            refused: Vec::new(),
            error: None,
            places: collections::HashMap::new(),
        }
    }

    /// Has a key mean a value. [`Keys::finish`] tells whether the kernel took it.
    pub(crate) fn set(&mut self, key: ServiceKey, value: u32) {
        if self.held.insert(key, value) != Some(value) {
            self.write(key);
        }
    }

    /// Has a key mean nothing, if it means this value.
    pub(crate) fn remove(&mut self, key: ServiceKey, value: u32) {
        if self.held.get(&key) == Some(&value) {
            self.held.remove(&key);
            self.write(key);
        }
    }

    /// Tries again what the kernel has refused.
    ///
    /// # Errors
    ///
    /// The kernel's, if it still does.
    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        for key in std::mem::take(&mut self.refused) {
            self.write(key);
        }
        match self.error.take() {
            Some(error) if !self.refused.is_empty() => {
                Err(error.context(format!("the map {}", self.name)))
            }
            _ => Ok(()),
        }
    }

    /// How many keys the kernel has not taken.
    pub(crate) fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Tells whether it took all since there were `before` that it had not.
    ///
    /// # Errors
    ///
    /// What it said of the last.
    pub(crate) fn check(&mut self, before: usize) -> anyhow::Result<()> {
        match self.refused.len() > before {
            true => self.finish(),
            false => Ok(()),
        }
    }

    fn write(&mut self, key: ServiceKey) {
        let result = match self.held.get(&key) {
            Some(value) => {
                // The map first: the array may say "ask it" at any moment.
                let result = self.map.insert(Raw(key), value, 0).context("insertion");
                self.place(&key);
                result
            }
            None => {
                self.place(&key);
                match self.map.remove(&Raw(key)) {
                    // It was never there.
                    Err(MapError::SyscallError(error))
                        if error.io_error.kind() == ErrorKind::NotFound =>
                    {
                        Ok(())
                    }
                    result => result.context("removal"),
                }
            }
        };
        if let Err(error) = result {
            self.refused.push(key);
            self.error = Some(error);
        }
    }

    /// Makes the array's entry for a key say what is held.
    fn place(&mut self, key: &ServiceKey) {
        if key.protocol == 0 {
            // Asked for rarely, and of the map alone.
            return;
        }
        let place = front::place(key, front::shift(self.front.entries())) as u32;
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
