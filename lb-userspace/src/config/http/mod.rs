//! What a service of mode `local` does with HTTP: the tables `services.NAME.http` and
//! `pools.NAME.http`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Network, unique};

mod access_log;
mod answer;
mod balance;
mod client;
mod key;
mod limits;
mod pool;
mod retries;
mod route;
mod text_match;
mod timeouts;

pub use access_log::{AccessLog, LogFormat};
pub use answer::Answer;
pub use balance::{Balance, SameSite, Sticky};
pub use client::{Forwarded, ForwardedHeaders, RequestId, Trace};
pub use key::Key;
pub use limits::{Limits, RateLimit};
pub use pool::{BackendTls, CircuitBreaker, HttpVersion, Outliers, PoolHttp, ProxyProtocol};
pub use retries::{Retries, RetryOn};
pub use route::{HeaderChanges, Mirror, Redirect, Rewrite, Route, Scheme};
pub use text_match::TextMatch;
pub use timeouts::{RouteTimeouts, Timeouts};

/// How a service treats HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Routes by name; a request that fits none goes to the service's pool.
    #[serde(
        deserialize_with = "unique::map",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub routes: BTreeMap<String, Route>,
    /// How a request's backend is chosen.
    pub balance: Balance,
    /// `consistent-hash`: what is hashed.
    pub hash_on: Key,
    /// Sessions that stay with a backend by a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What is tried again when a backend fails.
    pub retries: Retries,
    /// How much clients may send.
    pub limits: Limits,
    /// How often clients may ask.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,
    /// What backends are told of the client, and who may tell Weir.
    pub forwarded: Forwarded,
    /// Networks whose connections begin with a PROXY header (v1 or v2), and must.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proxy_protocol_from: Vec<Network>,
    /// The request's id.
    pub request_id: RequestId,
    /// W3C trace context.
    pub trace: Trace,
    /// A line a request; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// The answer where no backend is left.
    pub unavailable: Answer,
    /// Protocols that a connection may be upgraded to.
    pub upgrades: Vec<String>,
    /// Whether dot segments and needless escapes are resolved in paths, before routes are
    /// matched and in what backends get.
    pub normalize_path: bool,
    /// Name by which Weir adds itself to `Via` (RFC 9110, 7.6.3); if absent, it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Changes to the headers of all requests.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub request_headers: HeaderChanges,
    /// Changes to the headers of all answers.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub response_headers: HeaderChanges,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            routes: BTreeMap::new(),
            balance: Balance::default(),
            hash_on: Key::Address,
            sticky: None,
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            limits: Limits::default(),
            rate_limits: Vec::new(),
            forwarded: Forwarded::default(),
            proxy_protocol_from: Vec::new(),
            request_id: RequestId::default(),
            trace: Trace::default(),
            access_log: None,
            unavailable: Answer::unavailable(),
            upgrades: vec!["websocket".to_owned()],
            normalize_path: true,
            via: None,
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
        }
    }
}

impl Http {
    /// Names of the pools that routes lead to, mirrors' too; a name may come twice.
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        self.routes.values().flat_map(Route::pools)
    }
}
