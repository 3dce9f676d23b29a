//! A backend as all workers see it: what is in flight, how it answers, whether it rests.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{stats::BackendStats, sticky::Token};

/// A server of a pool; with another address it is another one.
pub(crate) struct Backend {
    /// Its pool's name.
    pub(crate) pool: String,
    /// Its name.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What stands for it in cookies.
    pub(crate) token: Token,
    /// What it was sent.
    pub(crate) stats: BackendStats,
    /// Requests in flight, of all workers.
    in_flight: AtomicU32,
    /// Open connections, of all workers.
    connections: AtomicU32,
    /// Requests that wait for a connection, of all workers.
    pending: AtomicU32,
    /// Moving average of the time to the answer's headers, in microseconds.
    latency: AtomicU32,
    errors_in_row: AtomicU32,
    failures_in_row: AtomicU32,
    /// How often it was left out without a good spell between.
    ejections_in_row: AtomicU32,
    /// Milliseconds on [`clock`] until which it is left out.
    rests_until: AtomicU64,
}

/// Milliseconds since the first call.
pub(crate) fn clock() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

impl Backend {
    /// One that has done nothing yet.
    pub(crate) fn new(
        pool: &str,
        name: &str,
        address: SocketAddr,
        workers: usize,
        token: Token,
    ) -> Self {
        Self {
            pool: pool.to_owned(),
            name: name.to_owned(),
            address,
            token,
            stats: BackendStats::new(workers),
            in_flight: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            latency: AtomicU32::new(0),
            errors_in_row: AtomicU32::new(0),
            failures_in_row: AtomicU32::new(0),
            ejections_in_row: AtomicU32::new(0),
            rests_until: AtomicU64::new(0),
        }
    }

    /// Requests in flight.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Open connections.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Requests that wait for a connection.
    pub(crate) fn pending(&self) -> u32 {
        self.pending.load(Relaxed)
    }

    /// Average time to the answer's headers, in microseconds; 0 before the first.
    pub(crate) fn latency(&self) -> u32 {
        self.latency.load(Relaxed)
    }

    /// Whether it is left out now.
    pub(crate) fn rests_now(&self) -> bool {
        // Nearly none ever was: the clock need not be read.
        let until = self.rests_until.load(Relaxed);
        until != 0 && until > clock()
    }

    /// Whether it is left out at this time of [`clock`].
    pub(crate) fn rests(&self, now: u64) -> bool {
        self.rests_until.load(Relaxed) > now
    }

    /// Takes a latency into the average.
    pub(crate) fn measured(&self, latency: Duration) {
        let new = u32::try_from(latency.as_micros())
            .unwrap_or(u32::MAX)
            .max(1);
        let old = self.latency.load(Relaxed);
        let next = match old {
            0 => new,
            // An eighth of the news, as TCP smooths its round trips.
            _ => (u64::from(old) * 7 + u64::from(new)).div_ceil(8) as u32,
        };
        // Two workers at once: one of the two measurements is lost, which does no harm.
        self.latency.store(next, Relaxed);
    }

    /// What was measured says nothing any more.
    pub(crate) fn forget_latency(&self) {
        self.latency.store(0, Relaxed);
    }

    /// It answered with a status below 500.
    pub(crate) fn did_well(&self) {
        // Nearly always zero already: do not take the cache line from others.
        for count in [&self.errors_in_row, &self.failures_in_row] {
            if count.load(Relaxed) != 0 {
                count.store(0, Relaxed);
            }
        }
    }

    /// It answered with 500 or more; how often in a row.
    pub(crate) fn erred(&self) -> u32 {
        self.failures_in_row.store(0, Relaxed);
        self.errors_in_row.fetch_add(1, Relaxed) + 1
    }

    /// No connection, or none that lasted to the answer; how often in a row.
    pub(crate) fn failed(&self) -> u32 {
        self.failures_in_row.fetch_add(1, Relaxed) + 1
    }

    /// Leaves it out for `rest`, or longer if it was left out before and did not do well for as
    /// long since, up to `most`. False: it rests already.
    pub(crate) fn eject(&self, rest: Duration, most: Duration) -> bool {
        let now = clock();
        let until = self.rests_until.load(Relaxed);
        if until > now {
            return false;
        }
        let times = self.ejections_in_row.load(Relaxed);
        let length = |times: u32| rest.saturating_mul(1 << times.min(20)).min(most);
        let long_ago = until + length(times).as_millis() as u64 <= now;
        let times = if until == 0 || long_ago { 0 } else { times + 1 };
        let next = now + length(times).as_millis() as u64;
        let won = self
            .rests_until
            .compare_exchange(until, next, Relaxed, Relaxed)
            .is_ok();
        if won {
            self.ejections_in_row.store(times, Relaxed);
            self.errors_in_row.store(0, Relaxed);
            self.failures_in_row.store(0, Relaxed);
        }
        won
    }
}

/// Something of a backend's that is counted until this is dropped.
pub(crate) struct Held {
    backend: Arc<Backend>,
    what: fn(&Backend) -> &AtomicU32,
}

impl Held {
    fn new(backend: &Arc<Backend>, what: fn(&Backend) -> &AtomicU32) -> Held {
        what(backend).fetch_add(1, Relaxed);
        Held {
            backend: backend.clone(),
            what,
        }
    }

    /// A request in flight.
    pub(crate) fn request(backend: &Arc<Backend>) -> Held {
        Held::new(backend, |backend| &backend.in_flight)
    }

    /// An open connection.
    pub(crate) fn connection(backend: &Arc<Backend>) -> Held {
        Held::new(backend, |backend| &backend.connections)
    }

    /// A request that waits for a connection.
    pub(crate) fn pending(backend: &Arc<Backend>) -> Held {
        Held::new(backend, |backend| &backend.pending)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        (self.what)(&self.backend).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::sticky::SessionKey;
    use lb_common::hash::HashKey;

    fn token() -> Token {
        SessionKey::new(HashKey([1, 2])).token("pool", "a")
    }

    #[test]
    fn rests_longer_each_time() {
        let backend = Backend::new("pool", "a", "10.0.0.1:80".parse().unwrap(), 1, token());
        let (rest, most) = (Duration::from_secs(10), Duration::from_secs(25));
        let lasts = |backend: &Backend| backend.rests_until.load(Relaxed) - clock();
        assert!(backend.eject(rest, most));
        assert!(!backend.eject(rest, most));
        assert!((9_000..=10_000).contains(&lasts(&backend)));
        // It has ended a moment ago.
        backend.rests_until.store(clock().max(1), Relaxed);
        while backend.rests(clock()) {}
        assert!(backend.eject(rest, most));
        assert!((19_000..=20_000).contains(&lasts(&backend)));
        backend.rests_until.store(clock().max(1), Relaxed);
        while backend.rests(clock()) {}
        assert!(backend.eject(rest, most));
        assert!((24_000..=25_000).contains(&lasts(&backend)));
    }

    #[test]
    fn counts_while_held() {
        let backend = Arc::new(Backend::new(
            "pool",
            "a",
            "10.0.0.1:80".parse().unwrap(),
            1,
            token(),
        ));
        let first = Held::request(&backend);
        let second = Held::request(&backend);
        assert_eq!(backend.in_flight(), 2);
        drop(first);
        assert_eq!(backend.in_flight(), 1);
        drop(second);
        assert_eq!(backend.in_flight(), 0);
    }
}
