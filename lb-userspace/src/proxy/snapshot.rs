//! What the workers work by: one immutable value, made by the state owner.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use super::{
    access_log::AccessLog,
    backend::Backend,
    headers::{request_id::RequestIds, via::Via},
    lasting::Rate,
    limits::ClientConnections,
    listen::Sockets,
    route::{FixedAnswer, Table},
    stats::ServiceStats,
    sticky::Cookie,
    tls::{self, IdentityHeaders, Passthrough},
    traces::Traces,
};
use crate::{
    config::{
        Tls,
        http::{Http, PoolHttp},
    },
    desired::Condition,
};

/// Everything at one moment.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// By where they listen.
    pub(crate) listeners: BTreeMap<SocketAddr, Listener>,
}

/// A VIP and port, and who is behind it.
pub(crate) struct Listener {
    /// A socket a worker.
    pub(crate) sockets: Arc<Sockets>,
    /// What is served there.
    pub(crate) service: Arc<Service>,
}

/// A service.
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: String,
    /// How it treats HTTP.
    pub(crate) http: Arc<Http>,
    /// Its routes.
    pub(crate) routes: Table,
    /// By a route's number: the pools that it leads to, by their place here, and their weights.
    pub(crate) targets: Vec<Vec<(usize, u16)>>,
    /// By a route's number: the pool that gets copies, by its place here, and which share of them,
    /// in percent.
    pub(crate) mirrors: Vec<Option<(usize, u32)>>,
    /// The answer where no backend is left.
    pub(crate) unavailable: FixedAnswer,
    /// What is added to `Via`, if anything is.
    pub(crate) via: Option<Via>,
    /// How requests get their id, if they do.
    pub(crate) request_ids: Option<RequestIds>,
    /// TLS with its clients, if it is spoken.
    pub(crate) tls: Option<Arc<ServiceTls>>,
    /// The pools that requests may go to; the first is its own, or its fallback.
    pub(crate) pools: Vec<Arc<Pool>>,
    /// By a route's number: how often clients may ask.
    pub(crate) rates: Vec<Vec<Rate>>,
    /// By a route's number: the cookie of its sessions, if they stay with a backend.
    pub(crate) cookies: Vec<Option<Cookie>>,
    /// Who is connected, where that is limited.
    pub(crate) clients: Arc<ClientConnections>,
    /// A line a request, if they are logged.
    pub(crate) log: Option<Arc<AccessLog>>,
    /// Where the spans of traced requests go, if they go anywhere.
    pub(crate) traces: Option<Arc<Traces>>,
    /// What it has done.
    pub(crate) stats: Arc<ServiceStats>,
}

/// TLS with a service's clients.
pub(crate) struct ServiceTls {
    /// What it was made of.
    pub(crate) config: Tls,
    /// Certificates; none where all names are passed through.
    pub(crate) server: Option<tls::Server>,
    /// Names whose connections go on as they are.
    pub(crate) passthrough: Passthrough,
    /// Headers that say who the client is.
    pub(crate) identity: Option<IdentityHeaders>,
}

/// A pool's backends as they may be used.
pub(crate) struct Pool {
    /// Its name.
    pub(crate) name: String,
    /// How its backends are spoken to.
    pub(crate) http: Arc<PoolHttp>,
    /// TLS with them, if it is spoken.
    pub(crate) tls: Option<Arc<tls::Backend>>,
    /// Percent of it that outlier ejection leaves in use.
    pub(crate) floor_percent: u8,
    /// All of them.
    pub(crate) members: Vec<Member>,
    /// Indexes of those that take requests, each as often as its weight says and evenly spread;
    /// a power of two of them, or none.
    pub(crate) turns: Vec<u32>,
    /// The same for consistent hashing.
    pub(crate) slots: Vec<u32>,
}

/// A backend of a pool.
pub(crate) struct Member {
    /// The backend.
    pub(crate) backend: Arc<Backend>,
    /// What it may be given.
    pub(crate) condition: Condition,
    /// Its share.
    pub(crate) weight: u32,
}

impl Member {
    /// Whether it is to be given requests that could go elsewhere.
    pub(crate) fn takes_requests(&self) -> bool {
        self.condition == Condition::InUse && self.weight > 0
    }
}
