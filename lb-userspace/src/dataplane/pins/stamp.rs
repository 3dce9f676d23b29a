//! What a later agent must have in common with an earlier one to understand its maps.

use std::{fs, io, net::IpAddr, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::Context as _;
use aya::maps::MapData;
use lb_common::{
    abi::{IPV6, LAYOUT},
    hash::HashKey,
};

use super::super::{
    backends::identity_at,
    mapped::{self, MappedArray},
    options::Limits,
};

/// The map's name.
const NAME: &str = "STAMP";

/// The content of the map `STAMP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(super) layout: u64,
    /// Not the key itself: nothing needs it here.
    pub(super) hash_key: u64,
    pub(super) sources: u64,
    /// The network namespace that the links are in.
    pub(super) namespace: u64,
    pub(super) limits: Limits,
}

/// Words of the map.
const WORDS: u32 = 8;

impl Stamp {
    /// This agent's, which runs in the network namespace of the calling thread. `sources`:
    /// addresses in the order of their indexes.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn new(hash_key: [u64; 2], sources: &[IpAddr], limits: Limits) -> io::Result<Self> {
        let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
        let sources = sources.iter().map(|at| identity_at(*at, 0));
        let fold = |all, one| HashKey([all, one]).flow(IPV6, &[0; 2], &[0; 2], 0, 0);
        Ok(Self {
            layout: LAYOUT,
            hash_key: fold(hash_key[0], hash_key[1]),
            sources: sources.fold(0, fold),
            namespace,
            limits,
        })
    }

    /// Pins it.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn pin(&self, directory: &Path) -> anyhow::Result<()> {
        let (map, words) = mapped::words("weir_stamp", WORDS)?;
        let Limits {
            services,
            backends,
            flows,
            translations,
        } = self.limits;
        let limits = [services, backends, flows].map(u64::from);
        let all = [self.layout, self.hash_key, self.sources].into_iter();
        let rest = [self.namespace, translations.into()];
        for (index, word) in (0..).zip(all.chain(limits).chain(rest)) {
            words.write(index, &word);
        }
        Ok(map.pin(directory.join(NAME))?)
    }

    /// An earlier agent's.
    ///
    /// # Errors
    ///
    /// There is none, or the kernel's.
    pub(super) fn read(directory: &Path) -> anyhow::Result<Self> {
        let map = MapData::from_pin(directory.join(NAME)).context("it has no stamp")?;
        let words: MappedArray<u64> = MappedArray::new(map.fd(), WORDS)?;
        let limit = |index| u32::try_from(words.read(index)).unwrap_or(u32::MAX);
        Ok(Self {
            layout: words.read(0),
            hash_key: words.read(1),
            sources: words.read(2),
            namespace: words.read(6),
            limits: Limits {
                services: limit(3),
                backends: limit(4),
                flows: limit(5),
                // An agent of before it was a limit of its own has 0 here.
                translations: limit(7),
            },
        })
    }
}
