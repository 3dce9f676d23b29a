//! The backends of all pools: their ids, and their entries in the map.

mod table;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use lb_common::maglev::Member;

pub(crate) use self::{
    table::BackendTable,
    write::{Outcome, Writing, identity_at},
};
use super::ids::Ids;
use crate::desired::{Condition, Delta, DesiredBackend};

/// A backend of a pool as it was first given; with another address it is another backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendKey {
    pub(crate) pool: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

/// Every backend that packets may go to.
pub(crate) struct Backends {
    ids: Ids,
    by_id: HashMap<u32, Known>,
    pools: HashMap<Arc<str>, Members>,
    by_address: HashMap<IpAddr, Vec<u32>>,
    /// Addresses where there was somebody, or nobody, when this was last asked for.
    moved: BTreeSet<IpAddr>,
    dead: BTreeSet<u32>,
    /// Of them, those that have never been seen alive.
    absent: BTreeSet<u32>,
    /// Removed, and kept for the flows that they still have: until when at least.
    retired: BTreeMap<u32, Instant>,
    /// Ids that an earlier agent had given out, by [`mark`].
    inherited: HashMap<u64, u32>,
}

/// A backend and what its entry says.
struct Known {
    key: BackendKey,
    identity: u64,
    /// [`mark`](super::pins::mark): a later agent knows it again by that.
    mark: u64,
    weight: u32,
    condition: Condition,
}

/// A pool's backends by id.
#[derive(Default)]
struct Members {
    live: BTreeMap<Arc<str>, u32>,
    retired: HashMap<Endpoint, u32>,
}

/// Name, address and port.
type Endpoint = (Arc<str>, IpAddr, u16);

impl Backends {
    /// None yet, and at most so many.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            ids: Ids::new(limit),
            by_id: HashMap::new(),
            pools: HashMap::new(),
            by_address: HashMap::new(),
            moved: BTreeSet::new(),
            dead: BTreeSet::new(),
            absent: BTreeSet::new(),
            retired: BTreeMap::new(),
            inherited: HashMap::new(),
        }
    }

    /// Goes on where an earlier agent has ended, which had these ids. None is there yet.
    pub(crate) fn inherit(&mut self, ids: impl Iterator<Item = (u64, u32)>) {
        let ids: Vec<_> = ids.collect();
        self.ids.inherit(ids.iter().map(|(_, id)| *id));
        self.inherited = ids.into_iter().collect();
    }

    /// Those of an earlier agent's ids that nobody has.
    pub(crate) fn not_inherited(&self) -> BTreeSet<u32> {
        self.ids.inherited().clone()
    }

    /// Has an id of an earlier agent's be that of the backend with this mark.
    pub(crate) fn bequeath(&mut self, mark: u64, id: u32) {
        self.inherited.insert(mark, id);
    }

    /// Has the ids of an earlier agent's that nobody has rest.
    pub(crate) fn leave_inherited(&mut self, rest: Duration) {
        self.inherited = HashMap::new();
        self.ids.leave_inherited(Instant::now(), rest);
    }

    fn take_inherited(&mut self, mark: u64) -> Option<u32> {
        let id = self.inherited.remove(&mark)?;
        self.ids.take_inherited(id).then_some(id)
    }

    /// How many new ids a change needs, and how many are free.
    pub(crate) fn demand(&self, delta: &Delta, now: Instant) -> (usize, usize) {
        let pools = delta.pools.iter();
        let new =
            pools.filter_map(|(pool, new)| Some((self.pools.get(pool.as_str()), new.as_ref()?)));
        let new = new.map(|(known, new)| {
            let is_new = |(name, backend): &(&String, &DesiredBackend)| {
                known.is_none_or(|known| self.id_of(known, name, backend).is_none())
            };
            new.iter().filter(is_new).count()
        });
        (new.sum(), self.ids.available(now))
    }

    /// The id that a backend of a pool has had, if it has had one.
    fn id_of(&self, members: &Members, name: &str, backend: &DesiredBackend) -> Option<u32> {
        let is_same = |id: &&u32| {
            let key = self.by_id.get(id).map(|known| &known.key);
            key.is_some_and(|key| (key.address, key.port) == (backend.address, backend.port))
        };
        let retired = || {
            let any = !members.retired.is_empty();
            any.then(|| (Arc::from(name), backend.address, backend.port))
                .and_then(|endpoint| members.retired.get(&endpoint))
        };
        let live = members.live.get(name).filter(is_same);
        live.or_else(retired).copied()
    }

    /// Those of the configuration in a pool, by name.
    pub(crate) fn live(&self, pool: &str) -> impl Iterator<Item = (&str, u32)> {
        let members = self.pools.get(pool).into_iter();
        members.flat_map(|members| members.live.iter().map(|(name, id)| (&**name, *id)))
    }

    /// Pool and name of each of the configuration.
    pub(crate) fn names(&self) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
        let pools = self.pools.iter();
        pools.flat_map(|(pool, of_pool)| {
            (of_pool.live.keys()).map(|name| (pool.clone(), name.clone()))
        })
    }

    /// The id of one of the configuration.
    pub(crate) fn id(&self, pool: &str, name: &str) -> Option<u32> {
        self.pools.get(pool)?.live.get(name).copied()
    }

    /// Address and port of each of a pool's that packets may still go to.
    pub(crate) fn endpoints(&self, pool: &str) -> impl Iterator<Item = (IpAddr, u16)> {
        let ids = self.pools.get(pool).into_iter();
        let ids = ids.flat_map(|members| members.live.values().chain(members.retired.values()));
        ids.filter_map(|id| self.by_id.get(id))
            .map(|known| (known.key.address, known.key.port))
    }

    /// Addresses where somebody has come, or nobody is left, since the last call.
    pub(crate) fn take_moved(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.moved)
    }

    /// Ids of all that have an address.
    pub(crate) fn ids_at(&self, address: IpAddr) -> &[u32] {
        self.by_address.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The backend with an id, if packets may still go to it.
    pub(crate) fn find(&self, id: u32) -> Option<&BackendKey> {
        self.by_id.get(&id).map(|known| &known.key)
    }

    /// What a backend is to a ring: the same on every node that has it, whatever its id.
    pub(crate) fn identity(&self, id: u32) -> u64 {
        self.by_id.get(&id).map_or(0, |known| known.identity)
    }

    /// Those that have failed.
    pub(crate) fn dead(&self) -> impl Iterator<Item = u32> {
        self.dead.iter().copied()
    }

    /// Whether nobody of a backend's slots is to be told that it has failed: it has never been
    /// seen alive, or `silent` says so of all that have failed.
    pub(crate) fn is_lost(&self, id: u32, silent: bool) -> bool {
        self.absent.contains(&id) || silent && self.is_dead(id)
    }

    /// Whether there is any backend of which [`Backends::is_lost`] is true.
    pub(crate) fn loses_any(&self, silent: bool) -> bool {
        !self.absent.is_empty() || silent && !self.dead.is_empty()
    }

    /// Whether a backend has failed.
    pub(crate) fn is_dead(&self, id: u32) -> bool {
        self.dead.contains(&id)
    }

    /// What a pool's rings are to be made of.
    pub(crate) fn members(&self, pool: &str) -> Vec<Member> {
        let ids = self.live(pool).map(|(_, id)| id);
        let takes_flows = |known: &&Known| known.condition == Condition::InUse && known.weight > 0;
        ids.filter_map(|id| Some((id, self.by_id.get(&id).filter(takes_flows)?)))
            .map(|(id, known)| Member {
                key: known.identity,
                id,
                weight: known.weight,
            })
            .collect()
    }
}
