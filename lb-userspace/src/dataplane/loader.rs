//! Loading the XDP program and opening its maps.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicU64},
};

use anyhow::{Context, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, ProgramArray, RingBuf, xdp::DevMap},
    programs::Xdp,
    util::nr_cpus,
};
use lb_common::{
    abi::{
        Address, Backend, Counters, Front, Plain, Service, Settings,
        direct::{SERVICES_FRONT, SLOTS},
        program,
    },
    front,
    hash::HashKey,
    reason::REASON_SLOTS,
};

use super::{
    backends::BackendTable,
    direct::{self, Direct},
    janitor::Janitor,
    keys::Keys,
    mapped::MappedArray,
    options::{Limits, Options},
    peers::News,
    pins::Inherited,
    raw::Raw,
    segments::Segments,
};

/// The object that the build script made; empty where it was told to skip that.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-xdp"));

/// Programs that feed packets to the data path, and floors to compare it with.
pub static BENCH_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-bench"));

/// Programs that make frames, let them through and swallow them.
pub static FRAMES_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-frames"));

/// Name of the program for interfaces; it hands packets on to the others.
pub(crate) const PROGRAM: &str = "weir";

/// All programs, by their index in the map `PROGRAMS`.
const PROGRAMS: [(u32, &str); 6] = [
    (program::STEER, PROGRAM),
    (program::OPEN, "weir_open"),
    (program::ANSWER, "weir_answer"),
    (program::ASIDE, "weir_aside"),
    (program::ICMP, "weir_icmp"),
    (program::FIRST, "weir_first"),
];

/// The tables that are part of the program.
struct Tables {
    services_front: MappedArray<Front>,
    services: MappedArray<Service>,
    backends: MappedArray<Backend>,
}

/// Every map, by what it holds.
pub(crate) struct Maps {
    pub(crate) settings: MappedArray<Settings>,
    pub(crate) services: Arc<MappedArray<Service>>,
    pub(crate) backends: BackendTable,
    pub(crate) services_by_key: Keys,
    pub(crate) returns: Keys,
    pub(crate) sources: Array<MapData, Raw<Address>>,
    pub(crate) egress: HashMap<MapData, u32, u64>,
    pub(crate) devices: DevMap<MapData>,
    pub(crate) service_counters: PerCpuArray<MapData, Raw<Counters>>,
    pub(crate) backend_counters: PerCpuArray<MapData, Raw<Counters>>,
    pub(crate) drops: PerCpuArray<MapData, u64>,
    // Dropping it would empty it.
    _programs: ProgramArray<MapData>,
}

/// What was loaded, by who works with it.
pub(crate) struct Loaded {
    pub(crate) ebpf: Ebpf,
    pub(crate) maps: Maps,
    /// The slots of all rings.
    pub(crate) segments: Segments,
    pub(crate) janitor: Janitor,
    pub(crate) neighbour_requests: RingBuf<MapData>,
    /// What other nodes are to be told; `None`: nothing.
    pub(crate) news: Option<News>,
}

/// Room for some 65,000 flows between two looks.
const NEWS_BYTES: u32 = 4 << 20;

/// How many segments there may be: for each ring one, and one for that which takes its place.
fn segments(limits: Limits) -> u32 {
    2 * limits.services + 2
}

/// Entries of the arrays in front of the services' keys and of their backends': powers of two.
/// The first is four times as long as the limit, so that few keys share a place.
fn fronts(limits: Limits) -> (u32, u32) {
    let services = (4 * limits.services).next_power_of_two();
    let services = services.min(SERVICES_FRONT);
    (services, (2 * limits.backends).next_power_of_two())
}

/// By what the program keeps an index below a number of entries, a power of two.
fn mask(entries: u32) -> u64 {
    u64::from(entries - 1)
}

/// Loads the programs and their maps, of which some may be an earlier agent's; nothing is
/// attached yet.
///
/// # Errors
///
/// What the kernel says, with the verifier's last words where it refused the program.
pub(crate) fn load(options: &Options, inherited: Option<&Inherited>) -> anyhow::Result<Loaded> {
    if OBJECT.is_empty() {
        bail!("this binary was built without the XDP program (AYA_BUILD_SKIP)");
    }
    let cpus = nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))?;
    let Limits {
        services,
        backends,
        flows,
        translations,
    } = options.limits;
    // No table has no room at all.
    let translations = translations.max(1);
    let (services_front, returns_front) = fronts(options.limits);
    let (first_backends, more_backends) = BackendTable::lengths(backends);
    let direct = Direct::new()?;
    let slots = direct.make("SLOTS", SLOTS)?;
    let tables = Tables {
        services_front: direct.make("SERVICES_FRONT", services_front)?,
        services: direct.make("SERVICES", direct::services(services))?,
        backends: direct.make("BACKENDS", first_backends)?,
    };
    // Ring buffers are at least a page.
    let (first_turn, news) = match options.tell_peers {
        true => (fastrand::u32(..), NEWS_BYTES),
        false => (0, 4096),
    };
    let mut loader = EbpfLoader::new();
    for (map, pin) in inherited.into_iter().flat_map(Inherited::shared) {
        loader.map_pin_path(map, pin);
    }
    for (section, pin) in direct.sections() {
        loader.map_pin_path(section, pin);
    }
    let mut ebpf = loader
        .override_global("HASH_KEY_LOW", &options.hash_key[0], true)
        .override_global("HASH_KEY_HIGH", &options.hash_key[1], true)
        .override_global("SERVICES_SHIFT", &front::shift(services_front), true)
        .override_global("RETURNS_SHIFT", &front::shift(returns_front), true)
        .override_global("SERVICE_MASK", &mask(tables.services.entries()), true)
        .override_global("BACKEND_MASK", &mask(tables.backends.entries()), true)
        .override_global("CPUS", &(cpus as u32), true)
        .override_global("TELL", &u32::from(options.tell_peers), true)
        .override_global("FIRST_TURN", &first_turn, true)
        .map_max_entries("NEWS", news)
        // Beside each VIP with its port, the VIP's address alone.
        .map_max_entries("SERVICES_BY_KEY", 2 * services)
        .map_max_entries("RETURNS_FRONT", returns_front)
        .map_max_entries("SEGMENTS", segments(options.limits))
        .map_max_entries("MORE_BACKENDS", more_backends)
        // A backend may serve a service over TCP and another over UDP.
        .map_max_entries("RETURNS", 2 * backends)
        .map_max_entries("PORT_TURNS", backends + 1)
        .map_max_entries("SERVICE_COUNTERS", services + 1)
        .map_max_entries("BACKEND_COUNTERS", backends + 1)
        .map_max_entries("DROPS", (services + 1) * REASON_SLOTS)
        .map_max_entries("TURNS", services + 1)
        .map_max_entries("CONNECTIONS", backends + 1)
        .map_max_entries("FLOWS", flows)
        .map_max_entries("NAT_FORWARD", translations)
        .map_max_entries("NAT_RETURN", translations)
        .load(OBJECT)
        .context("loading the XDP program's object")?;
    #[cfg(debug_assertions)]
    log_program(&mut ebpf);
    let maps = open_maps(&mut ebpf, options.limits, tables)?;
    Ok(Loaded {
        segments: Segments::new(
            slots,
            data(take(&mut ebpf, "SEGMENTS")?)?,
            segments(options.limits),
        ),
        janitor: Janitor {
            hash_key: HashKey(options.hash_key),
            services: maps.services.clone(),
            flows: data(take(&mut ebpf, "FLOWS")?)?,
            connections: mapped(&mut ebpf, "CONNECTIONS", options.limits.backends + 1)?,
            remembered: take(&mut ebpf, "FLOWS_REMEMBERED")?.try_into()?,
            learned: AtomicU64::new(0),
            affinities: data(take(&mut ebpf, "AFFINITIES")?)?,
            nat_forward: data(take(&mut ebpf, "NAT_FORWARD")?)?,
            nat_return: data(take(&mut ebpf, "NAT_RETURN")?)?,
        },
        neighbour_requests: take(&mut ebpf, "NEIGHBOUR_REQUESTS")?.try_into()?,
        news: options.tell_peers.then(|| news_of(&mut ebpf)).transpose()?,
        maps,
        ebpf,
    })
}

fn news_of(ebpf: &mut Ebpf) -> anyhow::Result<News> {
    Ok(News {
        told: take(ebpf, "NEWS")?.try_into()?,
        untold: take(ebpf, "UNTOLD")?.try_into()?,
        seen: 0,
        calls: 0,
    })
}

fn open_maps(ebpf: &mut Ebpf, limits: Limits, tables: Tables) -> anyhow::Result<Maps> {
    let mut programs: ProgramArray<MapData> = take(ebpf, "PROGRAMS")?.try_into()?;
    for (index, name) in PROGRAMS {
        let program = xdp(ebpf, name)?;
        program
            .load()
            .with_context(|| format!("the kernel refused the XDP program `{name}`"))?;
        programs.set(index, program.fd()?, 0)?;
    }
    let (_, returns_front) = fronts(limits);
    Ok(Maps {
        settings: mapped(ebpf, "SETTINGS", 1)?,
        services: Arc::new(tables.services),
        backends: BackendTable::new(
            tables.backends,
            mapped(
                ebpf,
                "MORE_BACKENDS",
                BackendTable::lengths(limits.backends).1,
            )?,
        ),
        services_by_key: Keys::new(
            "SERVICES_BY_KEY",
            take(ebpf, "SERVICES_BY_KEY")?.try_into()?,
            tables.services_front,
        ),
        returns: Keys::new(
            "RETURNS",
            take(ebpf, "RETURNS")?.try_into()?,
            mapped(ebpf, "RETURNS_FRONT", returns_front)?,
        ),
        sources: take(ebpf, "SOURCES")?.try_into()?,
        egress: take(ebpf, "EGRESS")?.try_into()?,
        devices: take(ebpf, "DEVICES")?.try_into()?,
        service_counters: take(ebpf, "SERVICE_COUNTERS")?.try_into()?,
        backend_counters: take(ebpf, "BACKEND_COUNTERS")?.try_into()?,
        drops: take(ebpf, "DROPS")?.try_into()?,
        _programs: programs,
    })
}

/// An array for writing in place, which has `entries` values.
fn mapped<T: Plain>(ebpf: &mut Ebpf, name: &str, entries: u32) -> anyhow::Result<MappedArray<T>> {
    MappedArray::new(data(take(ebpf, name)?)?.fd(), entries)
        .with_context(|| format!("mapping {name} into memory"))
}

/// What aya's types for single maps are made of.
fn data(map: Map) -> anyhow::Result<MapData> {
    match map {
        Map::Array(data) | Map::ArrayOfMaps(data) | Map::HashMap(data) | Map::LruHashMap(data) => {
            Ok(data)
        }
        _ => bail!("a map is of another type than the loader knows"),
    }
}

fn take(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Map> {
    ebpf.take_map(name)
        .with_context(|| format!("the XDP object has no map {name}"))
}

/// Ids of the maps of all programs.
///
/// # Errors
///
/// The kernel's, in particular where it is too old to tell (before Linux 4.15).
pub(crate) fn map_ids(ebpf: &mut Ebpf) -> anyhow::Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for (_, name) in PROGRAMS {
        let of_program = xdp(ebpf, name)?.info()?.map_ids()?;
        ids.extend(of_program.context("the kernel does not tell a program's maps")?);
    }
    Ok(ids)
}

/// A program of the object.
///
/// # Errors
///
/// Where there is none of that name.
pub(crate) fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("the XDP object has no program {name}"))?
        .try_into()?)
}

/// The program's own log, at level debug, in debug builds.
#[cfg(debug_assertions)]
fn log_program(ebpf: &mut Ebpf) {
    let logger = aya_log::EbpfLogger::init(ebpf)
        .map_err(anyhow::Error::from)
        .and_then(|logger| Ok(super::readable::readable(logger)?));
    match logger {
        Ok(mut logger) => drop(tokio::spawn(async move {
            while let Ok(mut ready) = logger.readable_mut().await {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        })),
        Err(error) => tracing::debug!("the XDP program has no log: {error}"),
    }
}
