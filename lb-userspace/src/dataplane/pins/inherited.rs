//! What an earlier agent has left in the kernel, as a later one goes on with it: the tables
//! that packets fill are used on as they are, and so that what stands in them stays true, each
//! service and backend keeps its number.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use aya::maps::MapData;
use lb_common::{
    abi::{
        Affinity, AffinityKey, Backend, Counters, Flow, FlowKey, LOG2_SEGMENT, NatForward,
        NatReturn, SEGMENT_SLOTS, Service, ServiceKey, backend_flags, ring_of,
    },
    slot::Slot,
};
use ring::digest;

use super::{
    super::{address::from_abi, batch, mapped::MappedArray},
    Stamp, kernel_name,
};
use crate::desired::Condition;

/// A map, and the bytes of its keys and values.
type Shape = (&'static str, usize, usize);

/// Filled by packets, whatever the configuration.
const SHARED: [Shape; 8] = [
    ("FLOWS", size_of::<FlowKey>(), size_of::<Flow>()),
    (
        "AFFINITIES",
        size_of::<AffinityKey>(),
        size_of::<Affinity>(),
    ),
    ("CONNECTIONS", 4, 8),
    ("TURNS", 4, 8),
    ("PORT_TURNS", 4, 4),
    ("SERVICE_COUNTERS", 4, size_of::<Counters>()),
    ("BACKEND_COUNTERS", 4, size_of::<Counters>()),
    ("DROPS", 4, 8),
];

/// The same, as long as the source addresses stay.
const TRANSLATIONS: [Shape; 2] = [
    ("NAT_FORWARD", size_of::<FlowKey>(), size_of::<NatForward>()),
    ("NAT_RETURN", size_of::<FlowKey>(), size_of::<NatReturn>()),
];

/// Read here.
const READ: [Shape; 4] = [
    ("SERVICES", 4, size_of::<Service>()),
    ("SERVICES_BY_KEY", size_of::<ServiceKey>(), 4),
    ("BACKENDS", 4, size_of::<Backend>()),
    ("SEGMENTS", 4, 4),
];

/// What is there to go on with.
pub(crate) struct Inherited {
    maps: PathBuf,
    /// By VIP: index and entry.
    services: HashMap<ServiceKey, (u32, Service)>,
    /// By id.
    backends: HashMap<u32, Backend>,
    /// Whether flows still find the same slots.
    same_hash: bool,
    /// Whether translations still have the same sources.
    same_sources: bool,
}

/// A service's ring.
pub(crate) struct InheritedRing {
    pub(crate) slots: Vec<Slot>,
    /// [`Service::hashed_ports`] and [`Service::base_hashed_ports`].
    pub(crate) hashed_ports: [u32; 2],
}

impl Inherited {
    /// Reads what is pinned in the directory of a program.
    ///
    /// # Errors
    ///
    /// Why nothing of it can be used.
    pub(crate) fn read(maps: PathBuf, own: &Stamp) -> anyhow::Result<Self> {
        let stamp = Stamp::read(&maps)?;
        if stamp.layout != own.layout {
            bail!(
                "its maps are of layout {}, this agent's of {}",
                stamp.layout,
                own.layout
            );
        }
        if stamp.limits != own.limits {
            bail!(
                "its tables were made with other `agent.limits`: {:?}",
                stamp.limits
            );
        }
        for (name, key, value) in SHARED.iter().chain(&TRANSLATIONS).chain(&READ) {
            let info = open(&maps, name)?.info()?;
            let shape = (info.key_size() as usize, info.value_size() as usize);
            ensure!(
                shape == (*key, *value),
                "its map {name} is of another layout"
            );
        }
        Ok(Self {
            services: services(&maps, own.limits.services)?,
            backends: backends(&maps, own.limits.backends)?,
            same_hash: stamp.hash_key == own.hash_key,
            same_sources: stamp.sources == own.sources,
            maps,
        })
    }

    /// Maps that are used on, by name, and where each is pinned.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let translations = TRANSLATIONS.iter().filter(|_| self.same_sources);
        let names = SHARED.iter().chain(translations).map(|(name, ..)| *name);
        names.map(|name| (name, self.maps.join(kernel_name(name))))
    }

    /// Says what is lost, in words, if something is.
    pub(crate) fn losses(&self) -> Vec<&'static str> {
        let mut losses = Vec::new();
        if !self.same_hash {
            losses.push("`agent.hash_key` is another: connections that nobody remembers move");
        }
        if !self.same_sources {
            losses.push("`agent.full_nat.addresses` are others: `full-nat` connections are lost");
        }
        losses
    }

    /// Indexes of the services, by VIP.
    pub(crate) fn services(&self) -> impl Iterator<Item = (ServiceKey, u32)> {
        let services = self.services.iter();
        services.map(|(key, (index, _))| (*key, *index))
    }

    /// Ids of the backends, by [`mark`].
    pub(crate) fn backends(&self) -> impl Iterator<Item = (u64, u32)> {
        let backends = self.backends.iter();
        backends.map(|(id, backend)| (mark_of(backend), *id))
    }

    /// Where a backend is, and what it was given.
    pub(crate) fn backend(&self, id: u32) -> Option<((IpAddr, u16), Condition)> {
        let backend = self.backends.get(&id)?;
        let at = (
            from_abi(backend.address, backend.family),
            u16::from_be(backend.port),
        );
        Some((at, condition(backend)))
    }

    /// What backends were given, by [`mark`].
    pub(crate) fn conditions(&self) -> HashMap<u64, Condition> {
        let backends = self.backends.values();
        backends
            .map(|backend| (mark_of(backend), condition(backend)))
            .collect()
    }

    /// The ring of the service with a VIP.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn ring(&self, vip: &ServiceKey) -> anyhow::Result<Option<InheritedRing>> {
        let Some((_, service)) = self.services.get(vip).filter(|_| self.same_hash) else {
            return Ok(None);
        };
        let (first, mask) = ring_of(service.ring);
        if service.ring == 0 {
            return Ok(None);
        }
        let segments = open(&self.maps, "SEGMENTS")?;
        let segment: Option<u32> = batch::lookup(segments.fd(), &(first >> LOG2_SEGMENT))?;
        let segment = MapData::from_id(segment.context("a ring's segment is gone")?)?;
        let array: MappedArray<u64> = MappedArray::new(segment.fd(), SEGMENT_SLOTS)?;
        let start = first & (SEGMENT_SLOTS - 1);
        let places = start..=start + mask;
        ensure!(
            *places.end() < SEGMENT_SLOTS,
            "a ring is larger than a segment"
        );
        Ok(Some(InheritedRing {
            slots: places.map(|place| Slot(array.read(place))).collect(),
            hashed_ports: [service.hashed_ports, service.base_hashed_ports],
        }))
    }
}

/// By what a later agent knows a backend again.
pub(crate) fn mark(pool: &str, name: &str, address: IpAddr, port: u16) -> u64 {
    // No name has a space in it.
    let text = format!("{pool} {name} {address} {port}");
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let bytes = hash.as_ref().first_chunk().copied();
    u64::from_le_bytes(bytes.unwrap_or_default())
}

fn mark_of(backend: &Backend) -> u64 {
    u64::from(backend.reserved[0]) | u64::from(backend.reserved[1]) << 32
}

fn condition(backend: &Backend) -> Condition {
    match backend.flags {
        flags if flags & backend_flags::DEAD != 0 => Condition::Dead,
        flags if flags & backend_flags::ALIVE != 0 => Condition::InUse,
        _ => Condition::Draining,
    }
}

fn open(maps: &Path, name: &str) -> anyhow::Result<MapData> {
    MapData::from_pin(maps.join(kernel_name(name))).with_context(|| format!("its map {name}"))
}

fn services(maps: &Path, limit: u32) -> anyhow::Result<HashMap<ServiceKey, (u32, Service)>> {
    let entries: MappedArray<Service> = MappedArray::new(open(maps, "SERVICES")?.fd(), limit + 1)?;
    let mut services = HashMap::new();
    batch::visit(
        open(maps, "SERVICES_BY_KEY")?.fd(),
        4096,
        |key: &ServiceKey, index: &u32| {
            // Index 0: the key of an address alone.
            if (1..=limit).contains(index) {
                services.insert(*key, (*index, entries.read(*index)));
            }
        },
    )?;
    Ok(services)
}

fn backends(maps: &Path, limit: u32) -> anyhow::Result<HashMap<u32, Backend>> {
    let entries: MappedArray<Backend> = MappedArray::new(open(maps, "BACKENDS")?.fd(), limit + 1)?;
    let all = (1..=limit).map(|id| (id, entries.read(id)));
    Ok(all.filter(|(_, backend)| backend.family != 0).collect())
}
