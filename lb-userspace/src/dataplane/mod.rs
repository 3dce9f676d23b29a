//! The data path as the agent sees it: load it, tell it what is desired, read its counters.
//!
//! Everything flows from [`Desired`] to the maps; nothing is read back from them to decide
//! what is wanted.

mod address;
mod apply;
mod attach;
mod backends;
mod batch;
mod buddies;
mod clock;
mod counters;
mod direct;
mod entries;
mod explain;
mod flows;
mod ids;
mod janitor;
mod keys;
mod loader;
mod mapped;
mod next_hops;
mod options;
mod orphans;
mod peers;
mod pins;
mod raw;
mod readable;
mod returns;
mod rings;
mod segments;
mod services;
mod tasks;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use aya::{Ebpf, programs::Xdp};
use tokio::{sync::mpsc, task::JoinSet};

pub(crate) use self::backends::identity_at;
use self::{
    apply::Applied,
    flows::Flows,
    janitor::Janitor,
    loader::{Loaded, Maps},
    next_hops::NextHops,
    peers::Peers,
    pins::{Inherited, Pins, Stamp},
    rings::Rings,
};
pub use self::{
    apply::ApplyError,
    attach::Attachment,
    counters::{BackendCounters, Counters, Drops, ServiceCounters, TrafficCounters},
    explain::{Explanation, Question},
    flows::FlowCounters,
    loader::{BENCH_OBJECT, FRAMES_OBJECT},
    mapped::MappedArray,
    options::{Attach, Interface, Limits, Options, Pin},
    pins::{Leftover, detach},
    raw::Raw,
};
use crate::{
    desired::{Condition, Delta, Desired},
    ha,
    next_hop::{Told, Wanted},
};

/// The loaded data path. Dropping it detaches the program from every interface, unless it was
/// [let go](DataPlane::let_go).
pub struct DataPlane {
    state: Arc<Mutex<State>>,
    interfaces: Vec<(Interface, u32)>,
    attachments: Vec<Attachment>,
    /// With what is pinned there.
    pins: Option<(Pins, Stamp)>,
    /// What an earlier agent had given its backends.
    conditions: HashMap<u64, Condition>,
    /// Where the resolver learns which addresses are wanted.
    wanted: mpsc::UnboundedSender<Wanted>,
    /// What is told of backends' next hops.
    resolutions: Option<mpsc::UnboundedReceiver<Told>>,
    janitor: Arc<Janitor>,
    peers: Option<Arc<Peers>>,
    /// Held while the flow tables are tidied up; whether that may be.
    tidying: Arc<Mutex<bool>>,
    // Ends the tasks with the data path.
    tasks: JoinSet<()>,
}

/// What applying and the tasks that follow the kernel share.
struct State {
    /// `None` once detached.
    ebpf: Option<Ebpf>,
    maps: Maps,
    applied: Applied,
    next_hops: NextHops,
    /// Addresses whose next hops are wanted as well as those of backends.
    expected: BTreeSet<IpAddr>,
    flows: Flows,
}

impl State {
    /// Says of these addresses whether they are wanted now.
    fn want(&self, wanted: &mpsc::UnboundedSender<Wanted>, addresses: BTreeSet<IpAddr>) {
        if addresses.is_empty() {
            return;
        }
        let is_wanted = |address: IpAddr| {
            let backends = self.applied.backends.ids_at(address);
            !backends.is_empty() || self.expected.contains(&address)
        };
        let all = addresses.into_iter();
        // The resolver ends with the data path.
        let _ = wanted.send(all.map(|address| (address, is_wanted(address))).collect());
    }
}

impl DataPlane {
    /// Loads the program and starts following the kernel's routes. Must be called within a tokio
    /// runtime. What an earlier agent has pinned goes on as it is until [`DataPlane::attach`].
    ///
    /// # Errors
    ///
    /// What the kernel refused, an interface that is not there, or another agent that has the
    /// pins.
    pub fn load(options: &Options) -> anyhow::Result<Self> {
        let (pins, inherited) = pins::begin(options)?;
        let Loaded {
            ebpf,
            mut maps,
            segments,
            janitor,
            neighbour_requests,
            news,
        } = loader::load(options, inherited.as_ref())?;
        let interfaces = attach::allow(&mut maps, &options.interfaces)?;
        let indexes = interfaces.iter().map(|(_, index)| *index);
        let (wanted, targets) = mpsc::unbounded_channel();
        let conditions = inherited.as_ref().map(Inherited::conditions);
        let rings = Rings::new(segments);
        let state = Arc::new(Mutex::new(State {
            ebpf: Some(ebpf),
            maps,
            applied: Applied::new(options.limits, rings, inherited),
            next_hops: NextHops::new(indexes),
            expected: BTreeSet::new(),
            flows: Flows::new(options.limits.flows),
        }));
        let janitor = Arc::new(janitor);
        let (tell, resolutions) = mpsc::unbounded_channel();
        let tasks = tasks::spawn(&state, targets, tell, neighbour_requests)?;
        let peers = news.map(|news| Arc::new(Peers::new(state.clone(), janitor.clone(), news)));
        Ok(Self {
            state,
            interfaces,
            attachments: Vec::new(),
            pins,
            conditions: conditions.unwrap_or_default(),
            peers,
            wanted,
            resolutions: Some(resolutions),
            janitor,
            tidying: Arc::new(Mutex::new(true)),
            tasks,
        })
    }

    /// Attaches the program, or puts it in the place of an earlier agent's: every packet meets
    /// the one or the other. Until then what is applied is seen by none.
    ///
    /// # Errors
    ///
    /// What the kernel refused, and the interface concerned. What an earlier agent left goes on.
    pub fn attach(&mut self) -> anyhow::Result<()> {
        let mut state = lock(&self.state);
        let State {
            ebpf,
            maps,
            applied,
            next_hops,
            ..
        } = &mut *state;
        let mut copies = None;
        if let Some(inherited) = applied.take_inherited() {
            let left = (&inherited, &*self.janitor);
            orphans::adopt(applied, maps, next_hops, left)?;
            self.janitor.learn(self.janitor.count()?);
            let mut tables = inherited.copies(|address| applied.source_index(address))?;
            tables.copy(&self.janitor).context(
                "copying an earlier agent's flows: they must fit into `agent.limits.flows`",
            )?;
            copies = Some(tables);
        }
        let ebpf = ebpf.as_mut().context("the program is detached")?;
        let attached = attach::attach(ebpf, self.pins.as_mut(), &self.interfaces);
        match attached {
            Ok(attachments) => self.attachments = attachments,
            Err(error) => {
                if let Some((mut pins, _)) = self.pins.take() {
                    pins.take_back();
                }
                return Err(error);
            }
        }
        drop(state);
        if let Some(mut copies) = copies
            && let Err(error) = copies.copy(&self.janitor)
        {
            tracing::warn!("the last of an earlier agent's flows: {error}");
        }
        let tidied = (&self.state, &self.janitor, &self.tidying);
        tasks::tidy_up(&mut self.tasks, tidied);
        Ok(())
    }

    /// What an earlier agent had given to a backend that is in the configuration.
    pub fn inherited(
        &self,
        pool: &str,
        name: &str,
        (address, port): (IpAddr, u16),
    ) -> Option<Condition> {
        let mark = || pins::mark(pool, name, address, port);
        let any = !self.conditions.is_empty();
        any.then(|| self.conditions.get(&mark()).copied()).flatten()
    }

    /// Ends without detaching what is pinned: the program goes on, for the next agent to take.
    /// Where nothing is pinned, it is detached.
    pub fn let_go(mut self) {
        if self.pins.take().is_some() {
            tracing::info!("the data path goes on without this agent");
        }
    }

    /// Lets another agent [load](DataPlane::load) what is pinned and put its own program in the
    /// place of this one, which goes on until then; nothing is to be changed meanwhile.
    ///
    /// # Errors
    ///
    /// Nothing is pinned.
    pub fn offer(&mut self) -> anyhow::Result<()> {
        let (pins, _) = self.pins.as_mut().context(
            "the data path is not pinned (`agent.pin` is \"\"), so no other agent can take it",
        )?;
        *lock(&self.tidying) = false;
        pins.unlock();
        Ok(())
    }

    /// Goes on where the other agent did not come: where it has put its program in the place of
    /// this one, and died, this one's comes back.
    ///
    /// # Errors
    ///
    /// Another agent still has what is pinned; or the kernel's.
    pub fn keep(&mut self) -> anyhow::Result<()> {
        let Some((pins, _)) = &mut self.pins else {
            return Ok(());
        };
        pins.lock_again()?;
        let mut state = lock(&self.state);
        let ebpf = state.ebpf.as_mut().context("the program is detached")?;
        let program = loader::xdp(ebpf, loader::PROGRAM)?.info()?.id();
        let indexes = self.interfaces.iter().map(|(_, index)| *index);
        if !pins.runs(program, indexes)? {
            self.attachments = attach::attach(ebpf, self.pins.as_mut(), &self.interfaces)?;
        }
        drop(state);
        *lock(&self.tidying) = true;
        Ok(())
    }

    /// Makes the data path do what is desired, whatever it did before.
    ///
    /// # Errors
    ///
    /// See [`ApplyError`].
    pub fn apply(&mut self, desired: &Desired) -> Result<(), ApplyError> {
        self.with(|applied, maps, next_hops| applied.apply(maps, next_hops, desired))
    }

    /// Makes the data path do what changes. An empty change finishes what the kernel has
    /// refused before.
    ///
    /// # Errors
    ///
    /// See [`ApplyError`].
    pub fn change(&mut self, delta: Delta) -> Result<(), ApplyError> {
        self.with(|applied, maps, next_hops| applied.change(maps, next_hops, delta))
    }

    fn with(
        &mut self,
        change: impl FnOnce(&mut Applied, &mut Maps, &NextHops) -> Result<(), ApplyError>,
    ) -> Result<(), ApplyError> {
        let mut state = lock(&self.state);
        let State {
            maps,
            applied,
            next_hops,
            ..
        } = &mut *state;
        let result = change(applied, maps, next_hops);
        let moved = applied.backends.take_moved();
        state.want(&self.wanted, moved);
        result
    }

    /// Where it is told what changes of backends' next hops, after the data path follows it; the
    /// first to ask gets it.
    pub fn take_resolutions(&mut self) -> mpsc::UnboundedReceiver<Told> {
        let taken = self.resolutions.take();
        taken.unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    /// Has the next hops of these addresses found out, beside those of backends that were told of,
    /// until others are expected.
    pub fn expect(&mut self, addresses: BTreeSet<IpAddr>) {
        let mut state = lock(&self.state);
        let before = std::mem::replace(&mut state.expected, addresses);
        let changed = before.symmetric_difference(&state.expected);
        let changed = changed.copied().collect();
        state.want(&self.wanted, changed);
    }

    /// Pool and name of the backends at an address, without removed ones.
    pub fn backends_at(&self, address: IpAddr) -> Vec<(Arc<str>, Arc<str>)> {
        let backends = &lock(&self.state).applied.backends;
        let at = backends.ids_at(address).iter();
        let at = at.filter_map(|&id| Some((id, backends.find(id)?)));
        at.filter(|(id, key)| backends.id(&key.pool, &key.name) == Some(*id))
            .map(|(_, key)| (key.pool.clone(), key.name.clone()))
            .collect()
    }

    /// Whether the kernel has refused a part of what is desired; see [`DataPlane::change`].
    pub fn is_unfinished(&self) -> bool {
        lock(&self.state).applied.is_unfinished()
    }

    /// How many new services and backends there is room for.
    pub fn room(&self) -> (usize, usize) {
        lock(&self.state).applied.room()
    }

    /// All counters since the data path was loaded.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn counters(&self) -> anyhow::Result<Counters> {
        let (services, backends) = {
            let applied = &lock(&self.state).applied;
            let services = applied.services.iter().map(|(name, _)| name.to_owned());
            let backends = applied.backends.names();
            (services.collect::<Vec<_>>(), backends.collect::<Vec<_>>())
        };
        let mut counters = Counters {
            flows: self.flow_counters(),
            unmatched_drops: self.unmatched_drops()?,
            ..Counters::default()
        };
        for name in services {
            let of_service = self.service_counters(&name)?;
            counters.services.insert(name, of_service);
        }
        for (pool, name) in backends {
            let of_backend = self.backend_counters(&pool, &name)?;
            let of_pool = counters.backends.entry(pool.to_string()).or_default();
            of_pool.insert(name.to_string(), of_backend);
        }
        Ok(counters)
    }

    /// Counters of a service; all zero where there is no such service.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn service_counters(&self, name: &str) -> anyhow::Result<ServiceCounters> {
        let state = lock(&self.state);
        let State { maps, applied, .. } = &*state;
        let Some(service) = applied.services.get(name) else {
            return Ok(ServiceCounters::default());
        };
        let mut counters = maps.service_counters(service.index)?;
        if let Some(ring) = applied.rings.get(name) {
            (counters.slots, counters.tracked_slots) = ring.counts();
            let digest = ring.digest(|id| applied.backends.identity(id));
            counters.digest = format!("{digest:016x}");
        }
        Ok(counters)
    }

    /// Counters of a backend; all zero where there is no such backend.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn backend_counters(&self, pool: &str, name: &str) -> anyhow::Result<BackendCounters> {
        let state = lock(&self.state);
        let Some(id) = state.applied.backends.id(pool, name) else {
            return Ok(BackendCounters::default());
        };
        Ok(BackendCounters {
            traffic: state.maps.backend_counters(id)?,
            flows: state.flows.of(id),
            open_connections: self.janitor.open_connections(id),
        })
    }

    /// Drops that no one service can be blamed for.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn unmatched_drops(&self) -> anyhow::Result<Drops> {
        Ok(lock(&self.state).maps.drops(0)?)
    }

    /// The flow tables.
    pub fn flow_counters(&self) -> FlowCounters {
        lock(&self.state).flows.counters()
    }

    /// Live flows of a backend as the janitor saw them last, and its passes so far; `None`
    /// where there is no such backend.
    pub fn flows(&self, pool: &str, name: &str) -> Option<(u64, u64)> {
        let state = lock(&self.state);
        let id = state.applied.backends.id(pool, name)?;
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

    /// Its flow tables, for other nodes; `None` where it was not loaded to tell of them.
    pub fn peers(&self) -> Option<Arc<dyn ha::sync::Tables>> {
        let peers = self.peers.clone()?;
        Some(peers)
    }

    /// Where the program runs.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        // Before it is attached, what is pinned is an earlier agent's.
        let pins = self.pins.take().filter(|_| !self.attachments.is_empty());
        if let Some((pins, _)) = pins
            && let Err(error) = pins.remove()
        {
            tracing::warn!("removing what was pinned: {error:#}");
        }
        // The tasks may hold the state for a moment more; the program goes now.
        lock(&self.state).ebpf = None;
    }
}

/// What is locked, also after a panic elsewhere: the next apply repairs what is half done.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
