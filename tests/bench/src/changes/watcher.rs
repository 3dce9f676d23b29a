//! Looks at rings while they change.

use std::{
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lb_common::{
    abi::{LOG2_SEGMENT, SEGMENT_SLOTS, Service, direct::SLOTS, ring_of},
    slot::Slot,
};
use lb_userspace::dataplane::{DataPlane, MappedArray};
use weir_tests::wire::{Backends, Map, Rings};

/// How many services are watched: a look at all takes a fraction of a millisecond.
const SAMPLE: usize = 64;

/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The maps that lead to rings, and those.
pub(crate) struct Watcher {
    services: Map,
    rings: Rings,
    backends: Backends,
}

/// A slot in the rings of some services, and the backends that they wait to lose.
pub(crate) struct Watched {
    slots: Vec<(MappedArray<u64>, u32)>,
    lost: HashSet<u32>,
}

impl Watcher {
    pub(crate) fn new(dataplane: &DataPlane) -> Result<Self> {
        Ok(Self {
            services: Map::open(dataplane, "SERVICES")?,
            rings: Rings::open(dataplane)?,
            backends: Backends::open(dataplane)?,
        })
    }

    /// Bytes that rings take beside `SLOTS`: those of the segments that they are in.
    pub(crate) fn ring_bytes(&self) -> Result<u64> {
        let services: Vec<Service> = self.services.values()?;
        let rings = services.iter().filter(|service| service.ring != 0);
        let segments: HashSet<u32> = rings
            .map(|service| ring_of(service.ring).0)
            .filter(|first| *first >= SLOTS)
            .map(|first| first >> LOG2_SEGMENT)
            .collect();
        Ok(segments.len() as u64 * u64::from(SEGMENT_SLOTS) * 8)
    }

    /// A slot of each of some services, first and last among them, that one of these backends
    /// owns.
    pub(crate) fn watch(&self, backends: &[SocketAddr]) -> Result<Watched> {
        let wanted: HashSet<[u8; 4]> = backends
            .iter()
            .filter_map(|at| match at {
                SocketAddr::V4(at) => Some(at.ip().octets()),
                SocketAddr::V6(_) => None,
            })
            .collect();
        let all = self.backends.all()?;
        let lost: HashSet<u32> = (0..)
            .zip(&all)
            .filter(|(_, backend)| {
                let bytes = backend.address[0].to_ne_bytes();
                wanted.contains(&[bytes[0], bytes[1], bytes[2], bytes[3]])
            })
            .map(|(id, _)| id)
            .collect();
        let services: Vec<Service> = self.services.values()?;
        let mut services: Vec<_> = (services.iter().filter(|service| service.ring != 0)).collect();
        services.sort_by_key(|service| service.address[0].swap_bytes());
        let step = services.len().div_ceil(SAMPLE);
        let sample = services.iter().step_by(step).chain(services.last());
        let mut slots = Vec::new();
        for service in sample {
            let (array, mut places) = self.rings.find(service.ring)?;
            let found = places.find(|place| lost.contains(&Slot(array.read(*place)).current()));
            slots.extend(found.map(|place| (array, place)));
        }
        ensure!(!slots.is_empty(), "no ring has the backends");
        Ok(Watched { slots, lost })
    }
}

impl Watched {
    /// How long after `started` the first and the last of the slots were others'.
    pub(crate) fn changed(self, started: Instant) -> Result<(Duration, Duration)> {
        let mut waiting = self.slots;
        let count = waiting.len();
        let mut first = None;
        loop {
            let mut still = Vec::new();
            for (array, place) in waiting {
                match self.lost.contains(&Slot(array.read(place)).current()) {
                    true => still.push((array, place)),
                    false => {
                        first.get_or_insert_with(|| started.elapsed());
                    }
                }
            }
            waiting = still;
            let elapsed = started.elapsed();
            if waiting.is_empty() {
                return Ok((first.unwrap_or(elapsed), elapsed));
            }
            let left = waiting.len();
            ensure!(elapsed < PATIENCE, "{left} of {count} rings do not change");
        }
    }
}
