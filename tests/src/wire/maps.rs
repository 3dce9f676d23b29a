//! The loaded program's maps, for looking at what the agent wrote and for writing what no
//! configuration can bring about here.

use std::ops::RangeInclusive;

use anyhow::{Context as _, Result, bail};
use aya::maps::{
    Array, HashMap, Map as AnyMap, MapData, MapError, MapInfo, ProgramArray, of_maps::ArrayOfMaps,
};
use lb_common::{
    abi::{Backend, LOG2_SEGMENT, Plain, SEGMENT_SLOTS, ring_of},
    slot::Slot,
};
use lb_userspace::dataplane::{DataPlane, MappedArray, Raw};

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
        bail!("the program has no map {name}")
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

    /// All entries of an array, or of a table that is an array's only value.
    ///
    /// # Errors
    ///
    /// The kernel's, or it is no such map.
    pub fn values<V: Plain>(&self) -> Result<Vec<V>> {
        if let Some(table) = self.table()? {
            return Ok((0..table.entries())
                .map(|index| table.read(index))
                .collect());
        }
        let map: Array<&MapData, Raw<V>> = (&self.0).try_into()?;
        let values = map.iter().map(|value| Ok(value?.0));
        Ok(values.collect::<Result<_, MapError>>()?)
    }

    /// Writes an entry of an array or a table.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn set<V: Plain>(&mut self, index: u32, value: V) -> Result<()> {
        if let Some(table) = self.table()? {
            table.write(index, &value);
            return Ok(());
        }
        let mut map: Array<&mut MapData, Raw<V>> = (&mut self.0).try_into()?;
        Ok(map.set(index, Raw(value), 0)?)
    }

    fn table<V: Plain>(&self) -> Result<Option<MappedArray<V>>> {
        let AnyMap::Array(data) = &self.0 else {
            bail!("the map is no array");
        };
        let entries = data.info()?.value_size() / size_of::<V>() as u32;
        let table = (entries > 1).then(|| MappedArray::new(data.fd(), entries));
        Ok(table.transpose()?)
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

/// The maps that backends are in.
pub struct Backends([Map; 2]);

impl Backends {
    /// Opens those that the program for interfaces uses.
    ///
    /// # Errors
    ///
    /// As [`Map::open`].
    pub fn open(dataplane: &DataPlane) -> Result<Self> {
        let [first, more] = ["BACKENDS", "MORE_BACKENDS"].map(|name| Map::open(dataplane, name));
        Ok(Self([first?, more?]))
    }

    /// All, by id.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn all(&self) -> Result<Vec<Backend>> {
        let Self([first, more]) = self;
        Ok([first.values()?, more.values::<Backend>()?].concat())
    }
}

/// The maps that slots are in.
pub struct Rings {
    first: Map,
    more: Map,
}

impl Rings {
    /// Opens those that the program for interfaces uses.
    ///
    /// # Errors
    ///
    /// As [`Map::open`].
    pub fn open(dataplane: &DataPlane) -> Result<Self> {
        Ok(Self {
            first: Map::open(dataplane, "SLOTS")?,
            more: Map::open(dataplane, "SEGMENTS")?,
        })
    }

    /// The array that the slots of a [`lb_common::abi::Service::ring`] are in, and their places
    /// there.
    ///
    /// # Errors
    ///
    /// The kernel's, or there is no such ring.
    pub fn find(&self, ring: u64) -> Result<(MappedArray<u64>, RangeInclusive<u32>)> {
        let (first, mask) = ring_of(ring);
        let array = match self.first.table()? {
            Some(table) if first < table.entries() => table,
            _ => {
                let segments: ArrayOfMaps<&MapData, MapData> = (&self.more.0).try_into()?;
                let segment = segments.get(&(first >> LOG2_SEGMENT), 0)?;
                MappedArray::new(segment.fd(), SEGMENT_SLOTS)?
            }
        };
        let start = first % array.entries();
        Ok((array, start..=start + mask))
    }

    /// The slots of a [`lb_common::abi::Service::ring`].
    ///
    /// # Errors
    ///
    /// As above.
    pub fn slots(&self, ring: u64) -> Result<Vec<Slot>> {
        let (array, places) = self.find(ring)?;
        Ok(places.map(|place| Slot(array.read(place))).collect())
    }
}
