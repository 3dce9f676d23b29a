//! What the owner shows: the bodies of the admin API's answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::drains::DrainView;
use crate::{
    config::{Pool, Service},
    dataplane::{Attachment, BackendCounters, Drops, FlowCounters, ServiceCounters},
    health::vote::Tally,
    proxy::{BackendHttpCounters, HttpCounters, tls::Expiry, traces::TracesView},
};

/// The agent and its data path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// The agent's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Where the XDP program runs, and how.
    pub interfaces: Vec<Attachment>,
    /// Number of services.
    pub services: usize,
    /// Number of pools.
    pub pools: usize,
    /// Number of backends, in all pools.
    pub backends: usize,
    /// Of them, those that take new flows.
    pub backends_in_use: usize,
    /// Dropped packets that no one service can be blamed for, by reason.
    pub drops: Drops,
    /// The flow tables.
    pub flows: FlowCounters,
    /// What has become of spans, if they are exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<TracesView>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// As configured: the body of a PUT.
    pub config: Service,
    /// The pool that serves it now: its own, or its fallback.
    pub served_by: String,
    /// What it forwarded and dropped.
    pub counters: ServiceCounters,
    /// `local`: what the HTTP proxy did for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCounters>,
    /// `local` with TLS: the certificates that clients are shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Expiry>,
    /// With an access log: lines that were not written as the disk was too slow, by all logs in
    /// the same place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_dropped: Option<u64>,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolView {
    /// As configured: the body of a PUT.
    pub config: Pool,
    /// Whether so few are healthy that the failed are used too.
    pub below_health_floor: bool,
    /// Its backends by name.
    pub backends: BTreeMap<String, BackendView>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendView {
    /// As configured: the body of a PUT.
    pub config: crate::config::Backend,
    /// What the health checks say.
    pub health: HealthView,
    /// Why no packets can be sent to it, if so, or not yet: it is not given new flows where others
    /// can be. Not looked at in a pool that only the HTTP proxy uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
    /// Whether it takes new flows.
    pub in_use: bool,
    /// Its drain, if it is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainView>,
    /// What it was sent, and its flows.
    pub counters: BackendCounters,
    /// What the HTTP proxy sent to it, if it serves a service of mode `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<BackendHttpCounters>,
}

/// What a backend is taken for, by the health checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    /// `healthy`, `unhealthy`, `unknown` (not checked yet) or `unchecked`.
    pub status: String,
    /// Why, in words.
    pub reason: String,
    /// When it became so, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// What this node's own checks say, where `status` is what the majority of the nodes says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub here: Option<HereView>,
    /// The votes that make up that majority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes: Option<Tally>,
}

/// What this node's own checks say of a backend: as [`HealthView`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HereView {
    /// `healthy`, `unhealthy` or `unknown`.
    pub status: String,
    /// Why, in words.
    pub reason: String,
    /// When it became so, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

impl HealthView {
    pub(super) fn new(status: String, reason: String, since: Option<u64>) -> Self {
        Self {
            status,
            reason,
            since,
            here: None,
            votes: None,
        }
    }

    /// What this node's own checks say.
    pub fn here(&self) -> &str {
        self.here.as_ref().map_or(&self.status, |here| &here.status)
    }
}
