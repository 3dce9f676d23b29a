//! The loaded program's maps, for looking at what the agent wrote and for writing what no
//! configuration can bring about here.

use anyhow::{Context as _, Result};
use aya::maps::{
    Array, HashMap, Map as AnyMap, MapData, MapError, MapInfo, ProgramArray, of_maps::ArrayOfMaps,
};
use lb_common::abi::Plain;
use lb_userspace::dataplane::{DataPlane, Raw};

/// A map by its name.
pub struct Map(AnyMap);

impl Map {
    /// Opens a map that the program for interfaces uses.
    ///
    /// # Errors
    ///
    /// It uses none of that name.
    pub fn open(dataplane: &DataPlane, name: &str) -> Result<Self> {
        let ids = dataplane.with_program(|program| program.info()?.map_ids())??;
        for id in ids.context("the kernel does not tell a program's maps")? {
            if MapInfo::from_id(id)?.name_as_str() == Some(name) {
                return Ok(Self(AnyMap::from_map_data(MapData::from_id(id)?)?));
            }
        }
        anyhow::bail!("the program has no map {name}")
    }

    /// All entries of a hash map.
    ///
    /// # Errors
    ///
    /// The kernel's, or it is no such map.
    pub fn entries<K: Plain, V: Plain>(&self) -> Result<Vec<(K, V)>> {
        let map: HashMap<&MapData, Raw<K>, Raw<V>> = (&self.0).try_into()?;
        let entries = map.iter().map(|entry| {
            let (Raw(key), Raw(value)) = entry?;
            Ok((key, value))
        });
        Ok(entries.collect::<Result<_, MapError>>()?)
    }

    /// Writes an entry of a hash map.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn insert<K: Plain, V: Plain>(&mut self, key: K, value: V) -> Result<()> {
        let mut map: HashMap<&mut MapData, Raw<K>, Raw<V>> = (&mut self.0).try_into()?;
        Ok(map.insert(Raw(key), Raw(value), 0)?)
    }

    /// All entries of an array.
    ///
    /// # Errors
    ///
    /// The kernel's, or it is no such map.
    pub fn values<V: Plain>(&self) -> Result<Vec<V>> {
        let map: Array<&MapData, Raw<V>> = (&self.0).try_into()?;
        let values = map.iter().map(|value| Ok(value?.0));
        Ok(values.collect::<Result<_, MapError>>()?)
    }

    /// Writes an entry of an array.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn set<V: Plain>(&mut self, index: u32, value: V) -> Result<()> {
        let mut map: Array<&mut MapData, Raw<V>> = (&mut self.0).try_into()?;
        Ok(map.set(index, Raw(value), 0)?)
    }

    /// The slots of the segment at an index of an array of segments.
    ///
    /// # Errors
    ///
    /// The kernel's, or it is no such map.
    pub fn slots(&self, segment: u32) -> Result<Vec<u64>> {
        let slots = self.segment(segment)?;
        Ok(slots.iter().collect::<Result<_, MapError>>()?)
    }

    /// The segment at an index of an array of segments.
    ///
    /// # Errors
    ///
    /// The kernel's, or it is no such map.
    pub fn segment(&self, segment: u32) -> Result<Array<MapData, u64>> {
        let segments: ArrayOfMaps<&MapData, Array<MapData, u64>> = (&self.0).try_into()?;
        Ok(segments.get(&segment, 0)?)
    }

    /// Empties a place of an array of programs.
    ///
    /// # Errors
    ///
    /// The kernel's, or it is no such map.
    pub fn clear_program(&mut self, index: u32) -> Result<()> {
        let mut map: ProgramArray<&mut MapData> = (&mut self.0).try_into()?;
        Ok(map.clear_index(&index)?)
    }
}
