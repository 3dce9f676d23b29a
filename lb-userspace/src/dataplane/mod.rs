//! The data path as the agent sees it: load it, tell it what is desired, read its counters.
//!
//! Everything flows from [`Desired`] to the maps; nothing is read back from them to decide
//! what is wanted.

mod address;
mod apply;
mod attach;
mod backends;
mod batch;
mod clock;
mod counters;
mod explain;
mod flows;
mod ids;
mod janitor;
mod keys;
mod loader;
mod mapped;
mod next_hops;
mod options;
mod raw;
mod readable;
mod rings;
mod services;
mod tasks;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use aya::{Ebpf, programs::Xdp};
use lb_common::maglev::digest;
use tokio::{sync::watch, task::JoinSet};

use self::{
    apply::Applied,
    flows::Flows,
    janitor::Janitor,
    loader::{Loaded, Maps},
    next_hops::NextHops,
    rings::Rings,
};
pub use self::{
    apply::ApplyError,
    attach::Attachment,
    counters::{BackendCounters, Counters, Drops, ServiceCounters, TrafficCounters},
    explain::{Explanation, Question},
    flows::FlowCounters,
    loader::{BENCH_OBJECT, FRAMES_OBJECT},
    options::{Attach, Interface, Limits, Options},
    raw::Raw,
};
use crate::desired::Desired;

/// The loaded data path. Dropping it detaches the program from every interface.
pub struct DataPlane {
    state: Arc<Mutex<State>>,
    attachments: Vec<Attachment>,
    targets: watch::Sender<Arc<BTreeSet<IpAddr>>>,
    janitor: Arc<Janitor>,
    // Ends the tasks with the data path.
    _tasks: JoinSet<()>,
}

/// What applying and the tasks that follow the kernel share.
struct State {
    /// `None` once detached.
    ebpf: Option<Ebpf>,
    maps: Maps,
    applied: Applied,
    next_hops: NextHops,
    flows: Flows,
}

impl DataPlane {
    /// Loads the program, attaches it and starts following the kernel's routes. Must be
    /// called within a tokio runtime. Until something is applied every packet passes.
    ///
    /// # Errors
    ///
    /// What the kernel refused, and the interface concerned.
    pub fn load(options: &Options) -> anyhow::Result<Self> {
        let Loaded {
            mut ebpf,
            mut maps,
            rings,
            janitor,
            neighbour_requests,
        } = loader::load(options)?;
        let attachments = attach::attach(&mut ebpf, &mut maps, &options.interfaces)?;
        let interfaces = attachments
            .iter()
            .map(|attached| attached.ifindex)
            .collect();
        let (targets, followed) = watch::channel(Arc::default());
        let state = Arc::new(Mutex::new(State {
            ebpf: Some(ebpf),
            maps,
            applied: Applied::new(
                options.limits,
                Rings::new(rings, loader::rings(options.limits)),
            ),
            next_hops: NextHops::new(interfaces),
            flows: Flows::default(),
        }));
        let janitor = Arc::new(janitor);
        let tasks = tasks::spawn(&state, followed, neighbour_requests, janitor.clone())?;
        Ok(Self {
            state,
            attachments,
            targets,
            janitor,
            _tasks: tasks,
        })
    }

    /// Makes the data path do what is desired. Blocks for milliseconds.
    ///
    /// # Errors
    ///
    /// See [`ApplyError`].
    pub fn apply(&mut self, desired: &Desired) -> Result<(), ApplyError> {
        let mut state = lock(&self.state);
        let State {
            maps,
            applied,
            next_hops,
            ..
        } = &mut *state;
        let result = applied.apply(maps, next_hops, desired);
        let addresses = applied.backends.addresses();
        let addresses = addresses.map(|(address, _)| address).collect();
        drop(state);
        self.targets.send_replace(Arc::new(addresses));
        result
    }

    /// All counters since the data path was loaded.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn counters(&self) -> anyhow::Result<Counters> {
        let state = lock(&self.state);
        let State {
            maps,
            applied,
            flows,
            ..
        } = &*state;
        let mut counters = Counters {
            unmatched_drops: maps.drops(0)?,
            flows: flows.counters(),
            ..Counters::default()
        };
        let mut identities = HashMap::new();
        for (key, id) in applied.backends.live() {
            let backend = BackendCounters {
                traffic: maps.backend_counters(id)?,
                flows: flows.of(id),
            };
            let pool = counters.backends.entry(key.pool.clone()).or_default();
            pool.insert(key.name.clone(), backend);
            identities.insert(id, backends::identity(&maps.backends.read(id)));
        }
        for (name, service) in applied.services.iter() {
            let mut of_service = maps.service_counters(service.index)?;
            if let Some(ring) = applied.rings.get(name) {
                (of_service.slots, of_service.tracked_slots) = ring.counts();
                let key = |id| identities.get(&id).copied().unwrap_or(0);
                of_service.digest = format!("{:016x}", digest(ring.owners().map(key)));
            }
            counters.services.insert(name.to_owned(), of_service);
        }
        Ok(counters)
    }

    /// Live flows of a backend as the janitor saw them last, and its passes so far; `None`
    /// where there is no such backend.
    pub fn flows(&self, pool: &str, name: &str) -> Option<(u64, u64)> {
        let state = lock(&self.state);
        let mut backends = state.applied.backends.live();
        let (_, id) = backends.find(|(key, _)| key.pool == pool && key.name == name)?;
        Some((state.flows.of(id), state.flows.passes()))
    }

    /// What would become of a client's packet, from the live maps.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn explain(&self, question: &Question) -> anyhow::Result<Explanation> {
        let state = lock(&self.state);
        explain::explain(&state.applied, &state.maps, &self.janitor, question)
    }

    /// Gives the loaded program for BPF_PROG_TEST_RUN, or for handing packets on to it.
    ///
    /// # Errors
    ///
    /// It is detached.
    pub fn with_program<R>(&self, look: impl FnOnce(&Xdp) -> R) -> anyhow::Result<R> {
        let mut state = lock(&self.state);
        let ebpf = state.ebpf.as_mut().context("the program is detached")?;
        Ok(look(loader::xdp(ebpf, loader::PROGRAM)?))
    }

    /// Where the program runs.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        // The tasks may hold the state for a moment more; the program goes now.
        lock(&self.state).ebpf = None;
    }
}

/// The state, also after a panic elsewhere: the next apply repairs what is half done.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
