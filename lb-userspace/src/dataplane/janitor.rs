//! Looking at the flow tables now and then: forgetting flows that have ended or gone quiet,
//! so that their ports and memory come back, and counting those that live.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use aya::maps::{MapData, PerCpuArray};
use lb_common::{
    abi::{Flow, FlowKey, NatForward, NatReturn, Service, flow_state, nat_state},
    full_nat,
    hash::HashKey,
    selection,
};

use super::{batch, clock, mapped::MappedArray};

/// Flows read at a time.
const CHUNK: usize = 4096;

/// The flow tables, apart from everything that an apply locks.
pub(crate) struct Janitor {
    pub(crate) hash_key: HashKey,
    pub(crate) services: Arc<MappedArray<Service>>,
    pub(crate) flows: MapData,
    pub(crate) nat_forward: MapData,
    pub(crate) nat_return: MapData,
    pub(crate) affinities: MapData,
    /// By backend id.
    pub(crate) connections: MappedArray<u64>,
    pub(crate) remembered: PerCpuArray<MapData, u64>,
    /// Flows put into `flows` that other nodes have told of, or that an earlier agent left there.
    pub(crate) learned: AtomicU64,
}

/// What a pass found.
pub(crate) struct Pass {
    /// When it began.
    pub(crate) started: Instant,
    /// The packet path's clock then.
    pub(crate) tick: u32,
    /// Live flows of tracked slots by service index: hash and backend id.
    pub(crate) by_service: HashMap<u32, Vec<(u64, u32)>>,
    /// Live flows by backend id, of both kinds.
    pub(crate) by_backend: HashMap<u32, u64>,
    /// Live flows of tracked slots.
    pub(crate) tracked: u64,
    /// Live flows of `full-nat` services.
    pub(crate) translated: u64,
    /// Flows of tracked slots put into the table before the pass, since it was made.
    pub(crate) remembered: u64,
    /// Flows of tracked slots that were forgotten in this pass.
    pub(crate) forgotten: u64,
}

impl Janitor {
    /// Forgets every flow that may be, and counts the others. Each is looked at again before it
    /// goes: it may have spoken meanwhile, or its client may have used its numbers again.
    /// `dead`: backends whose connections do not count any more.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn pass(&self, dead: impl Fn(u32) -> bool) -> io::Result<Pass> {
        let remembered = self.remembered.get(&0, 0).map_err(io::Error::other)?;
        let mut pass = Pass {
            started: Instant::now(),
            tick: clock::tick()?,
            by_service: HashMap::new(),
            by_backend: HashMap::new(),
            tracked: 0,
            translated: 0,
            remembered: remembered.iter().sum::<u64>() + self.learned.load(Ordering::Relaxed),
            forgotten: 0,
        };
        let before: Vec<u64> = self.counts().collect();
        let mut counted = HashMap::new();
        self.tracked(&mut pass, &mut counted)?;
        self.translated(&mut pass, &mut counted)?;
        counted.retain(|&id, _| !dead(id));
        self.correct_counts(&before, &counted);
        Ok(pass)
    }

    /// Flows are put into the table that other nodes have told of, or that an earlier agent left.
    pub(crate) fn learn(&self, flows: u64) {
        self.learned.fetch_add(flows, Ordering::Relaxed);
    }

    /// How many tracked flows there are.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn count(&self) -> io::Result<u64> {
        let mut there = 0;
        batch::visit(self.flows.fd(), CHUNK, |_: &FlowKey, _: &Flow| there += 1)?;
        Ok(there)
    }

    /// Connections of a backend by the count of least-connections services.
    pub(crate) fn open_connections(&self, backend: u32) -> u64 {
        match backend < self.connections.entries() {
            // One that was corrected at the wrong moment may be below zero for a while.
            true => u64::try_from(self.connections.read(backend) as i64).unwrap_or(0),
            false => 0,
        }
    }

    /// Removes a `full-nat` flow of a service as its client's packets find it, from its
    /// backend side, if it is there.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn forget_forward_of(
        &self,
        service: &Service,
        key: &FlowKey,
        flow: &NatReturn,
    ) -> io::Result<()> {
        let forward = full_nat::forward_key(service, key, flow);
        let there: Option<NatForward> = batch::lookup(self.nat_forward.fd(), &forward)?;
        match there.is_some_and(|there| full_nat::leads_to(&there, key, flow)) {
            true => remove(&self.nat_forward, &forward),
            false => Ok(()),
        }
    }

    fn service(&self, index: u32) -> Option<Service> {
        (index < self.services.entries()).then(|| self.services.read(index))
    }

    fn tracked(&self, pass: &mut Pass, counted: &mut HashMap<u32, u64>) -> io::Result<()> {
        let mut over = Vec::new();
        batch::visit(self.flows.fd(), CHUNK, |key: &FlowKey, flow: &Flow| {
            let service = self.service(flow.service);
            let idle_ticks = service.map_or(0, |service| service.idle_ticks);
            match selection::forgettable(flow, idle_ticks, pass.tick) {
                true => over.push((*key, *flow)),
                false => self.lives(pass, counted, key, flow),
            }
        })?;
        for (key, flow) in over {
            match batch::lookup(self.flows.fd(), &key)? {
                Some(now) if now != flow => self.lives(pass, counted, &key, &now),
                _ => {
                    pass.forgotten += 1;
                    remove(&self.flows, &key)?;
                    if flow.state & flow_state::COUNTED != 0 {
                        self.uncount(flow.backend);
                    }
                }
            }
        }
        Ok(())
    }

    fn lives(&self, pass: &mut Pass, counted: &mut HashMap<u32, u64>, key: &FlowKey, flow: &Flow) {
        let service = self.service(flow.service);
        let hashed_ports = service.map_or(0, |service| service.hashed_ports);
        let hash = self.hash_key.of(key, hashed_ports);
        let flows = pass.by_service.entry(flow.service).or_default();
        flows.push((hash, flow.backend));
        *pass.by_backend.entry(flow.backend).or_default() += 1;
        pass.tracked += 1;
        if flow.state & flow_state::COUNTED != 0 {
            *counted.entry(flow.backend).or_default() += 1;
        }
    }

    fn translated(&self, pass: &mut Pass, counted: &mut HashMap<u32, u64>) -> io::Result<()> {
        let mut lives = |pass: &mut Pass, flow: &NatReturn| {
            *pass.by_backend.entry(flow.backend).or_default() += 1;
            pass.translated += 1;
            if flow.state & nat_state::COUNTED != 0 {
                *counted.entry(flow.backend).or_default() += 1;
            }
        };
        let mut over = Vec::new();
        let look = |key: &FlowKey, flow: &NatReturn| {
            let service = self.service(flow.service);
            let idle_ticks = service.map_or(0, |service| service.idle_ticks);
            match full_nat::forgettable(flow, idle_ticks, pass.tick) {
                true => over.push((*key, service, *flow)),
                false => lives(pass, flow),
            }
        };
        batch::visit(self.nat_return.fd(), CHUNK, look)?;
        for (key, service, flow) in over {
            match batch::lookup(self.nat_return.fd(), &key)? {
                Some(now) if now != flow => lives(pass, &now),
                _ => {
                    if let Some(service) = service {
                        self.forget_forward_of(&service, &key, &flow)?;
                    }
                    remove(&self.nat_return, &key)?;
                    if flow.state & nat_state::COUNTED != 0 {
                        self.uncount(flow.backend);
                    }
                }
            }
        }
        Ok(())
    }

    fn counts(&self) -> impl Iterator<Item = u64> {
        (0..self.connections.entries()).map(|id| self.connections.read(id))
    }

    fn uncount(&self, backend: u32) {
        if backend < self.connections.entries() {
            self.connections.add(backend, u64::MAX);
        }
    }

    /// Packets that were lost, and entries that were evicted, leave counts wrong for ever.
    /// What is outside of what the count was before and after is corrected.
    fn correct_counts(&self, before: &[u64], counted: &HashMap<u32, u64>) {
        for ((id, now), &before) in (0..).zip(self.counts()).zip(before) {
            let counted = counted.get(&id).copied().unwrap_or(0) as i64;
            let (before, now) = (before as i64, now as i64);
            let wrong = counted - counted.clamp(before.min(now), before.max(now));
            if wrong != 0 {
                self.connections.add(id, wrong as u64);
            }
        }
    }
}

/// Removes a flow; the packet path may have been faster.
fn remove(map: &MapData, key: &FlowKey) -> io::Result<()> {
    match batch::delete(map.fd(), key) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
