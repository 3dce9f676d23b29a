//! The data path as the agent sees it: load it, tell it what is desired, read its counters.
//!
//! Everything flows from [`Desired`] to the maps; nothing is read back from them to decide
//! what is wanted.

mod address;
mod apply;
mod attach;
mod batch;
mod counters;
mod ids;
mod janitor;
mod loader;
mod mapped;
mod next_hops;
mod options;
mod raw;
mod readable;
mod rings;
mod tasks;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::Ebpf;
use tokio::{sync::watch, task::JoinSet};

use self::{
    apply::Applied,
    loader::{Loaded, Maps},
    next_hops::NextHops,
    rings::Rings,
};
pub use self::{
    apply::ApplyError,
    attach::Attachment,
    counters::{Counters, Drops, ServiceCounters, TrafficCounters},
    options::{Attach, Interface, Limits, Options},
};
use crate::desired::Desired;

/// The loaded data path. Dropping it detaches the program from every interface.
pub struct DataPlane {
    state: Arc<Mutex<State>>,
    attachments: Vec<Attachment>,
    targets: watch::Sender<Arc<BTreeSet<IpAddr>>>,
    // Ends the tasks with the data path.
    _tasks: JoinSet<()>,
}

/// What applying and the tasks that follow the kernel share.
struct State {
    /// `None` once detached.
    ebpf: Option<Ebpf>,
    maps: Maps,
    rings: Rings,
    applied: Applied,
    next_hops: NextHops,
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
            rings: Rings::new(rings, loader::rings(options.limits)),
            maps,
            applied: Applied::new(options.limits),
            next_hops: NextHops::new(interfaces),
        }));
        let tasks = tasks::spawn(&state, followed, neighbour_requests, janitor)?;
        Ok(Self {
            state,
            attachments,
            targets,
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
            rings,
            applied,
            next_hops,
            ..
        } = &mut *state;
        let result = applied.apply(maps, rings, next_hops, desired);
        let addresses = applied.addresses().map(|(address, _)| address).collect();
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
        let mut counters = Counters {
            unmatched_drops: state.maps.drops(0)?,
            ..Counters::default()
        };
        for (name, index) in state.applied.service_indexes() {
            let service = state.maps.service_counters(index)?;
            counters.services.insert(name.to_owned(), service);
        }
        for (pool, name, id) in state.applied.backend_ids() {
            let backend = state.maps.backend_counters(id)?;
            let pool = counters.backends.entry(pool.to_owned()).or_default();
            pool.insert(name.to_owned(), backend);
        }
        Ok(counters)
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
