//! Counters: each worker writes its own, and readers add them up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// A number that one thread changes and others read.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds. Only the owning worker may.
    pub(crate) fn add(&self, more: u64) {
        // One writer: a load and a store are enough, and need no bus lock.
        self.0
            .store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// Subtracts. Only the owning worker may.
    pub(crate) fn sub(&self, less: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_sub(less), Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A set of counters for each worker, apart in memory.
pub(crate) struct PerWorker<T>(Box<[Apart<T>]>);

#[repr(align(128))]
#[derive(Default)]
struct Apart<T>(T);

impl<T: Default> PerWorker<T> {
    /// Zeroes.
    pub(crate) fn new(workers: usize) -> Self {
        PerWorker((0..workers).map(|_| Apart::default()).collect())
    }
}

impl<T> PerWorker<T> {
    /// A worker's own.
    pub(crate) fn of(&self, worker: usize) -> &T {
        &self.0[worker].0
    }

    fn sum(&self, of: impl Fn(&T) -> &Count) -> u64 {
        self.0.iter().map(|apart| of(&apart.0).get()).sum()
    }
}

macro_rules! counters {
    ($(#[$about:meta])* $cell:ident, $view:ident { $($(#[$doc:meta])* $field:ident,)+ }) => {
        #[derive(Default)]
        pub(crate) struct $cell {
            $(pub(crate) $field: Count,)+
        }

        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $view {
            $($(#[$doc])* pub $field: u64,)+
        }

        impl PerWorker<$cell> {
            /// Adds the sums over all workers.
            pub(crate) fn add_to(&self, view: &mut $view) {
                $(view.$field += self.sum(|cell| &cell.$field);)+
            }
        }
    };
}

counters!(
    /// What the HTTP proxy did for a service.
    ServiceCell, HttpCounters {
        /// Connections of clients that were accepted.
        connections,
        /// Of them, those that are open.
        open_connections,
        /// Requests.
        requests,
        /// Of them, those whose answer is not at its end.
        requests_in_flight,
        /// Answers of 100 to 199: upgrades.
        responses_1xx,
        /// Answers of 200 to 299.
        responses_2xx,
        /// Answers of 300 to 399.
        responses_3xx,
        /// Answers of 400 to 499.
        responses_4xx,
        /// Answers of 500 to 599.
        responses_5xx,
        /// Of all answers, those that Weir gave itself.
        own_answers,
        /// Requests that could not be read as HTTP and were refused.
        malformed,
        /// Connections of HTTP/2 that made work without asking for anything, and were closed.
        floods,
        /// Tries after the first.
        retries,
        /// Retries that the budget did not allow.
        retries_refused,
        /// Tunnels that were opened.
        tunnels,
        /// Bytes of requests' bodies.
        bytes_in,
        /// Bytes of answers' bodies.
        bytes_out,
    }
);

counters!(
    /// What the HTTP proxy sent to a backend.
    BackendCell, BackendHttpCounters {
        /// Requests, tries and retries alike.
        requests,
        /// Answers of 200 to 299, and upgrades.
        responses_2xx,
        /// Answers of 300 to 399.
        responses_3xx,
        /// Answers of 400 to 499.
        responses_4xx,
        /// Answers of 500 to 599.
        responses_5xx,
        /// Connections that were made.
        connections,
        /// Connections that could not be made.
        connect_failures,
        /// Requests that broke before the end of the answer.
        failures,
        /// Answers that did not come in time.
        timeouts,
        /// How often it was left out for a while as an outlier.
        ejections,
        /// Requests that the circuit breaker kept away from it.
        refused_by_breaker,
        /// Bytes of requests' bodies.
        bytes_in,
        /// Bytes of answers' bodies.
        bytes_out,
    }
);

/// A service's counters.
pub(crate) type ServiceStats = PerWorker<ServiceCell>;
/// A backend's counters.
pub(crate) type BackendStats = PerWorker<BackendCell>;

impl ServiceCell {
    /// Counts an answer.
    pub(crate) fn answered(&self, status: u16) {
        let class = match status {
            ..200 => &self.responses_1xx,
            200..300 => &self.responses_2xx,
            300..400 => &self.responses_3xx,
            400..500 => &self.responses_4xx,
            _ => &self.responses_5xx,
        };
        class.add(1);
    }
}

impl BackendCell {
    /// Counts an answer.
    pub(crate) fn answered(&self, status: u16) {
        let class = match status {
            ..300 => &self.responses_2xx,
            300..400 => &self.responses_3xx,
            400..500 => &self.responses_4xx,
            _ => &self.responses_5xx,
        };
        class.add(1);
    }
}
