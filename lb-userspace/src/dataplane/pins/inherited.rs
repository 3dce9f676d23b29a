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
        Address, Affinity, AffinityKey, Backend, Counters, Flow, FlowKey, IPV4, IPV6, LOG2_SEGMENT,
        NatForward, NatReturn, SEGMENT_SLOTS, Service, ServiceKey, backend_flags, direct::SLOTS,
        ring_of,
    },
    slot::Slot,
};
use ring::digest;

use super::{
    super::{
        address::from_abi, backends::BackendTable, batch, direct, mapped::MappedArray,
        options::Limits,
    },
    Stamp,
    copy::{Copies, Table},
    kernel_name,
};
use crate::desired::Condition;

/// A map, and the bytes of its keys and values.
type Shape = (&'static str, usize, usize);

/// Filled by packets, in tables of the same size on all nodes.
const OF_ONE_SIZE: [Shape; 1] = [(
    "AFFINITIES",
    size_of::<AffinityKey>(),
    size_of::<Affinity>(),
)];

/// As large as `limits.flows`.
const FLOWS: [Shape; 1] = [("FLOWS", size_of::<FlowKey>(), size_of::<Flow>())];
/// As large as `limits.translations`.
const TRANSLATIONS: [Shape; 2] = [
    ("NAT_FORWARD", size_of::<FlowKey>(), size_of::<NatForward>()),
    ("NAT_RETURN", size_of::<FlowKey>(), size_of::<NatReturn>()),
];

/// As large as `limits.services`.
const BY_SERVICE: [Shape; 3] = [
    ("TURNS", 4, 8),
    ("SERVICE_COUNTERS", 4, size_of::<Counters>()),
    ("DROPS", 4, 8),
];

/// As large as `limits.backends`.
const BY_BACKEND: [Shape; 3] = [
    ("CONNECTIONS", 4, 8),
    ("PORT_TURNS", 4, 4),
    ("BACKEND_COUNTERS", 4, size_of::<Counters>()),
];

/// Read here.
const READ: [Shape; 4] = [
    ("SERVICES_BY_KEY", size_of::<ServiceKey>(), 4),
    ("MORE_BACKENDS", 4, size_of::<Backend>()),
    ("SEGMENTS", 4, 4),
    ("SOURCES", 4, size_of::<Address>()),
];

/// Read here, too: the only value of each is as large as the limits ask for.
fn tables(limits: Limits) -> [Shape; 3] {
    let (backends, _) = BackendTable::lengths(limits.backends);
    let of = |entries: u32, entry: usize| entries as usize * entry;
    [
        (
            "SERVICES",
            4,
            of(direct::services(limits.services), size_of::<Service>()),
        ),
        ("BACKENDS", 4, of(backends, size_of::<Backend>())),
        ("SLOTS", 4, of(SLOTS, size_of::<Slot>())),
    ]
}

/// What is there to go on with.
pub(crate) struct Inherited {
    maps: PathBuf,
    /// By VIP: index and entry.
    services: HashMap<ServiceKey, (u32, Service)>,
    /// By id.
    backends: HashMap<u32, Backend>,
    /// What it had in common with this one.
    stamp: Stamp,
    own: Stamp,
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
        if stamp.namespace != own.namespace {
            bail!("it was of another network namespace");
        }
        let shapes = [&OF_ONE_SIZE[..], &FLOWS, &TRANSLATIONS, &BY_SERVICE];
        let tables = tables(stamp.limits);
        let shapes = shapes.into_iter().chain([&BY_BACKEND[..], &READ, &tables]);
        for (name, key, value) in shapes.flatten() {
            let info = open(&maps, name)?.info()?;
            let shape = (info.key_size() as usize, info.value_size() as usize);
            ensure!(
                shape == (*key, *value),
                "its map {name} is of another layout"
            );
        }
        let inherited = Self {
            services: services(&maps, stamp.limits.services)?,
            backends: backends(&maps, stamp.limits.backends)?,
            stamp,
            own: *own,
            maps,
        };
        let highest = |ids: &mut dyn Iterator<Item = u32>| ids.max().unwrap_or(0);
        for (what, highest, limit) in [
            (
                "services",
                highest(&mut inherited.services().map(|(_, index)| index)),
                own.limits.services,
            ),
            (
                "backends",
                highest(&mut inherited.backends().map(|(_, id)| id)),
                own.limits.backends,
            ),
        ] {
            ensure!(
                highest <= limit,
                "it has numbered its {what} up to {highest}, and `agent.limits.{what}` is {limit}"
            );
        }
        Ok(inherited)
    }

    fn same_flows(&self) -> bool {
        self.stamp.limits.flows == self.own.limits.flows
    }

    /// Whether its translations can be used on as they are.
    fn same_translations(&self) -> bool {
        self.stamp.sources == self.own.sources
            && self.stamp.limits.translations == self.own.limits.translations
    }

    /// Whether flows still find the same slots.
    pub(crate) fn same_hash(&self) -> bool {
        self.stamp.hash_key == self.own.hash_key
    }

    /// Maps that are used on, by name, and where each is pinned.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let (old, new) = (self.stamp.limits, self.own.limits);
        let groups = [
            (true, &OF_ONE_SIZE[..]),
            (self.same_flows(), &FLOWS),
            (self.same_translations(), &TRANSLATIONS),
            (old.services == new.services, &BY_SERVICE),
            (old.backends == new.backends, &BY_BACKEND),
        ];
        let shared = groups.into_iter().filter(|(same, _)| *same);
        let names = shared.flat_map(|(_, maps)| maps).map(|(name, ..)| *name);
        names.map(|name| (name, self.maps.join(kernel_name(name))))
    }

    /// What is to be copied instead. `index` tells that of a source address here.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn copies(&self, index: impl Fn(IpAddr) -> Option<u32>) -> anyhow::Result<Copies> {
        let table = |name| Ok::<_, anyhow::Error>(Table::new(open(&self.maps, name)?));
        let flows = (!self.same_flows()).then(|| table("FLOWS")).transpose()?;
        let mut copies = Copies {
            flows,
            translations: None,
            sources: Vec::new(),
        };
        if self.same_translations() || self.own.limits.translations == 0 {
            return Ok(copies);
        }
        copies.translations = Some([table("NAT_FORWARD")?, table("NAT_RETURN")?]);
        let sources = open(&self.maps, "SOURCES")?;
        for place in 0..sources.info()?.max_entries() {
            let address: Option<Address> = batch::lookup(sources.fd(), &place)?;
            // The family is not told; hardly ever are the same bytes an address of both.
            let of = |family| index(from_abi(address?, family));
            copies.sources.push(of(IPV4).or_else(|| of(IPV6)));
        }
        Ok(copies)
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
        let Some((_, service)) = self.services.get(vip).filter(|_| self.same_hash()) else {
            return Ok(None);
        };
        let (first, mask) = ring_of(service.ring);
        if service.ring == 0 {
            return Ok(None);
        }
        let array = self.slots(first)?;
        let start = first % array.entries();
        let places = start..=start + mask;
        ensure!(
            *places.end() < array.entries(),
            "a ring is larger than a segment"
        );
        Ok(Some(InheritedRing {
            slots: places.map(|place| Slot(array.read(place))).collect(),
            hashed_ports: [service.hashed_ports, service.base_hashed_ports],
        }))
    }

    /// The array that has this slot.
    fn slots(&self, slot: u32) -> anyhow::Result<MappedArray<u64>> {
        if slot < SLOTS {
            let slots = open(&self.maps, "SLOTS")?;
            return Ok(MappedArray::new(slots.fd(), SLOTS)?);
        }
        let segments = open(&self.maps, "SEGMENTS")?;
        let segment: Option<u32> = batch::lookup(segments.fd(), &(slot >> LOG2_SEGMENT))?;
        let segment = MapData::from_id(segment.context("a ring's segment is gone")?)?;
        Ok(MappedArray::new(segment.fd(), SEGMENT_SLOTS)?)
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
    let (first, more) = BackendTable::lengths(limit);
    let entries = BackendTable::new(
        MappedArray::new(open(maps, "BACKENDS")?.fd(), first)?,
        MappedArray::new(open(maps, "MORE_BACKENDS")?.fd(), more)?,
    );
    let all = (1..=limit).map(|id| (id, entries.read(id)));
    Ok(all.filter(|(_, backend)| backend.family != 0).collect())
}
