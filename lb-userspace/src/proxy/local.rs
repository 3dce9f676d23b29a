//! A worker's own side of a snapshot: its connections, and whose turn it is.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
};

use super::{
    backend::Backend,
    date::Date,
    h1::Desk,
    snapshot::{Pool, Service},
    stats::ServiceCell,
    timers::Timers,
    upstream::Upstream,
};

/// Where a worker reads bytes to before anything else is there to hold them.
pub(crate) type Scratch = Rc<RefCell<Box<[u8]>>>;

/// What a worker's tasks share.
pub(crate) struct Worker {
    /// Its number, from 0.
    pub(crate) number: usize,
    /// Its deadlines.
    pub(crate) timers: Rc<Timers>,
    /// The date for answers that have none.
    pub(crate) date: Date,
    /// See [`Scratch`].
    pub(crate) scratch: Scratch,
    /// Where they read HTTP/1 to.
    pub(crate) desk: Desk,
    /// Connections of clients.
    pub(crate) links: Cell<usize>,
    upstreams: RefCell<HashMap<*const Backend, Rc<Upstream>>>,
}

/// A service as this worker serves it.
pub(crate) struct LocalService {
    /// What it is.
    pub(crate) plan: Arc<Service>,
    /// Its pools, as in the plan.
    pub(crate) pools: Vec<Rc<LocalPool>>,
    worker: usize,
}

/// A pool as this worker uses it.
pub(crate) struct LocalPool {
    /// What it is.
    pub(crate) plan: Arc<Pool>,
    /// Its backends, as in the plan.
    pub(crate) upstreams: Vec<Rc<Upstream>>,
    turn: Cell<u32>,
    /// This worker's requests in flight, and of them those that are retries.
    pub(crate) in_flight: Cell<u32>,
    /// See above.
    pub(crate) retrying: Cell<u32>,
}

impl Worker {
    /// A worker with nothing to do.
    pub(crate) fn new(number: usize) -> Rc<Self> {
        let timers = Timers::new();
        Rc::new(Self {
            number,
            date: Date::new(&timers),
            timers,
            scratch: Rc::new(RefCell::new(vec![0; 16 * 1024].into())),
            desk: Desk::default(),
            links: Cell::new(0),
            upstreams: RefCell::default(),
        })
    }

    /// This worker's side of a service, with what it has of it from before.
    pub(crate) fn localise(
        &self,
        plan: &Arc<Service>,
        known: &HashMap<*const Pool, Rc<LocalPool>>,
    ) -> Rc<LocalService> {
        let pools = plan
            .pools
            .iter()
            .map(|pool| match known.get(&Arc::as_ptr(pool)) {
                Some(known) => known.clone(),
                None => self.localise_pool(pool),
            });
        Rc::new(LocalService {
            pools: pools.collect(),
            plan: plan.clone(),
            worker: self.number,
        })
    }

    fn localise_pool(&self, plan: &Arc<Pool>) -> Rc<LocalPool> {
        let mut upstreams = self.upstreams.borrow_mut();
        let upstream = |backend: &Arc<Backend>| {
            let upstream = upstreams.entry(Arc::as_ptr(backend)).or_insert_with(|| {
                Upstream::new(
                    backend.clone(),
                    plan.clone(),
                    self.number,
                    self.timers.clone(),
                    self.desk.clone(),
                )
            });
            upstream.set_pool(plan);
            upstream.clone()
        };
        Rc::new(LocalPool {
            upstreams: (plan.members.iter())
                .map(|member| &member.backend)
                .map(upstream)
                .collect(),
            plan: plan.clone(),
            // Workers begin at different places.
            turn: Cell::new(fastrand::u32(..)),
            in_flight: Cell::new(0),
            retrying: Cell::new(0),
        })
    }

    /// Forgets backends that no service has any more; requests that are under way hold theirs.
    pub(crate) fn forget_unused(&self) {
        let mut upstreams = self.upstreams.borrow_mut();
        upstreams.retain(|_, upstream| {
            let used = Rc::strong_count(upstream) > 1;
            if !used {
                upstream.close_idle();
            }
            used
        });
    }

    /// Closes connections to backends that have ended or were idle for too long.
    pub(crate) fn sweep(&self) {
        let upstreams: Vec<_> = self.upstreams.borrow().values().cloned().collect();
        upstreams.iter().for_each(|upstream| upstream.sweep());
    }
}

impl LocalService {
    /// This worker's counters of it.
    pub(crate) fn stats(&self) -> &ServiceCell {
        self.plan.stats.of(self.worker)
    }
}

impl LocalPool {
    /// A number that is one more each time.
    pub(crate) fn next_turn(&self) -> u32 {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn
    }
}
