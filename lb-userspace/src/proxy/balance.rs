//! Which backend a request goes to.

use std::rc::Rc;

use super::{local::LocalPool, upstream::Upstream};
use crate::config::http::Balance;

/// Backends that a request was sent to already, by their places in the pool.
#[derive(Default)]
pub(crate) struct Tried([Option<u32>; 11]);

impl Tried {
    /// One more.
    pub(crate) fn add(&mut self, place: u32) {
        if let Some(free) = self.0.iter_mut().find(|tried| tried.is_none()) {
            *free = Some(place);
        }
    }

    fn has(&self, place: u32) -> bool {
        self.0.contains(&Some(place))
    }

    fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }
}

/// Who is asked when latency counts.
const CANDIDATES: usize = 3;

/// A backend for a request, with its place in the pool; by its hash, where that counts. None:
/// there is none that may be given any.
pub(crate) fn pick(
    pool: &LocalPool,
    balance: Balance,
    hash: u64,
    tried: &Tried,
) -> Option<(u32, Rc<Upstream>)> {
    let turns = &pool.plan.turns;
    if turns.is_empty() {
        return None;
    }
    let rules = Rules { pool, tried };
    let place = match balance {
        Balance::RoundRobin => rules.first(turns, pool.next_turn() as usize),
        Balance::ConsistentHash => rules.first(&pool.plan.slots, hash as usize),
        Balance::LeastRequests => rules.best::<2>(|place| u64::from(rules.in_flight(place))),
        Balance::Latency => rules.fastest(),
    };
    // Nobody new is left: one of those that were tried is better than none.
    let place = match place {
        None if !tried.is_empty() => {
            let tried = &Tried::default();
            Rules { pool, tried }.first(turns, pool.next_turn() as usize)
        }
        place => place,
    }?;
    Some((place, pool.upstreams[place as usize].clone()))
}

/// A certain backend, if it may be given a request now.
pub(crate) fn stay(pool: &LocalPool, place: u32) -> Option<(u32, Rc<Upstream>)> {
    let upstream = pool.upstreams.get(place as usize)?.clone();
    let tried = &Tried::default();
    let rules = Rules { pool, tried };
    rules.may(place).then_some((place, upstream))
}

struct Rules<'a> {
    pool: &'a LocalPool,
    tried: &'a Tried,
}

impl Rules<'_> {
    fn in_flight(&self, place: u32) -> u32 {
        self.pool.upstreams[place as usize].backend.in_flight()
    }

    fn latency(&self, place: u32) -> u32 {
        self.pool.upstreams[place as usize].backend.latency()
    }

    fn may(&self, place: u32) -> bool {
        let backend = &self.pool.upstreams[place as usize].backend;
        let most = self.pool.plan.http.circuit_breaker.requests;
        !self.tried.has(place)
            && !backend.rests_now()
            && most.is_none_or(|most| backend.in_flight() < most)
    }

    /// The first that may, from a slot on.
    fn first(&self, table: &[u32], start: usize) -> Option<u32> {
        let mask = table.len() - 1;
        (0..table.len())
            .map(|step| table[(start + step) & mask])
            .find(|place| self.may(*place))
    }

    /// Candidates by chance, each as likely as its weight says.
    fn draw<const N: usize>(&self) -> [Option<u32>; N] {
        let turns = &self.pool.plan.turns;
        let mask = turns.len() - 1;
        let mut drawn = [None; N];
        let mut random = fastrand::u64(..);
        for index in 0..N {
            let start = random as usize;
            random >>= 64 / N;
            let place = turns[start & mask];
            // Another one, if the same comes twice or it may not.
            let good = |place: u32| self.may(place) && !drawn.contains(&Some(place));
            drawn[index] = match good(place) {
                true => Some(place),
                false => (1..turns.len())
                    .map(|step| turns[(start + step) & mask])
                    .find(|place| good(*place)),
            };
        }
        drawn
    }

    /// Of a few the one that costs least.
    fn best<const N: usize>(&self, cost: impl Fn(u32) -> u64) -> Option<u32> {
        let drawn = self.draw::<N>();
        drawn.into_iter().flatten().min_by_key(|place| cost(*place))
    }

    /// Prequal's rule (Wydrowski and others, NSDI'24, section 4.2): those with many requests in
    /// flight are hot; of the cold the fastest, else of the hot the one with the fewest.
    fn fastest(&self) -> Option<u32> {
        let drawn = self.draw::<CANDIDATES>();
        let drawn = || drawn.into_iter().flatten();
        let least = drawn().map(|place| self.in_flight(place)).min()?;
        // The paper's limit is a quantile of what probes said; here, twice the least and a few.
        let limit = least * 2 + 3;
        drawn()
            .filter(|place| self.in_flight(*place) <= limit)
            .min_by_key(|place| (self.latency(*place), self.in_flight(*place)))
    }
}
