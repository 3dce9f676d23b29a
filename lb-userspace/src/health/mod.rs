//! Active health checks: each backend of each pool is connected to, or asked over HTTP, and
//! what [`Check::rise`] and [`Check::fall`] make of the answers is sent on as [`Change`]s.

mod checker;
mod failure;
mod http;
mod judge;
mod probe;
pub mod vote;
mod watch;

use std::{
    fmt::{self, Display},
    net::SocketAddr,
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::config::http::ProxyProtocol;

/// Changes that may wait for their receiver; more make the checks that found them wait.
const QUEUE: usize = 16_384;

/// One backend of one pool to check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Name of the pool.
    pub pool: String,
    /// Name of the backend in its pool.
    pub backend: String,
    /// Where to connect; may be another port than the backend's.
    pub address: SocketAddr,
    /// How to check.
    pub check: Arc<Check>,
}

/// What of a pool, or of one of its backends, is checked from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retarget {
    /// Name of the pool.
    pub pool: String,
    /// Name of the backend; absent: all of the pool.
    pub backend: Option<String>,
    /// These and no others of it.
    pub targets: Vec<Target>,
}

/// How, and how often, a backend is checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// What a check does.
    pub kind: Kind,
    /// From the start of one check to the start of the next, more than zero. A check that takes
    /// longer delays the next one: the checks of a target never overlap.
    pub interval: Duration,
    /// Percent of the interval, 0 to 100, by which each one is made shorter or longer at random.
    pub jitter: u8,
    /// Limit of a whole check: connection, request and response. May exceed the interval.
    pub timeout: Duration,
    /// The PROXY header that the backend wants first; it is told that the connection is for no
    /// client.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Passes in a row that make an unhealthy backend healthy; 0 counts as 1.
    pub rise: u32,
    /// Failures in a row that make a healthy backend unhealthy; 0 counts as 1.
    pub fall: u32,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Passes when the connection is established. It is reset at once, and the backend's
    /// application does not usually get to see it.
    Tcp,
    /// Sends `GET` over HTTP/1.1 and looks at the response. The connection is reset when enough
    /// of it was read.
    Http {
        /// Path, and query if any, with its leading slash.
        path: String,
        /// Value of the `Host` header; without it, the address and port checked.
        host: Option<String>,
        /// Statuses that pass. Redirects are not followed.
        status: RangeInclusive<u16>,
        /// What the first 64 KiB of the body must contain; without it, no body is read.
        body_contains: Option<String>,
    },
}

/// The verdict on a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// No check has ended yet.
    Unknown,
    /// Fit for traffic.
    Healthy,
    /// Not fit for traffic.
    Unhealthy,
}

impl Health {
    /// What two say of one backend together: it is healthy where both say so, and unhealthy where
    /// either does.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unhealthy, _) | (_, Self::Unhealthy) => Self::Unhealthy,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Healthy, Self::Healthy) => Self::Healthy,
        }
    }
}

impl Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A verdict, sent when it changes and when it is the first of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// [`Target::pool`].
    pub pool: String,
    /// [`Target::backend`].
    pub backend: String,
    /// The new verdict; never [`Health::Unknown`].
    pub health: Health,
    /// The result that decided it, for people: "connect: connection refused".
    pub reason: String,
}

/// Checks what it is told to until the sender of `targets` or the returned receiver is dropped.
///
/// The first result of a target decides its verdict alone. When the targets change, those that
/// stay as they are keep their state and schedule, and checks of the others are aborted at
/// once. A target with another check or address is a new one: its first result is sent also if
/// the verdict is what it was. Changes of targets that are gone may still be in the queue.
///
/// At most a quarter as many checks are made at a time as this process may open files; others
/// wait for their turn. A check that this host cannot do, out of file descriptors, memory or
/// ports, has no result.
///
/// # Panics
///
/// Outside of a Tokio runtime.
pub fn spawn(targets: mpsc::UnboundedReceiver<Retarget>) -> mpsc::Receiver<Change> {
    let (sender, changes) = mpsc::channel(QUEUE);
    tokio::spawn(checker::run(targets, sender));
    changes
}
