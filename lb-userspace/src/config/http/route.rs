//! Routes: which requests, and what becomes of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Answer, Balance, Key, RateLimit, Retries, RouteTimeouts, Sticky, TextMatch};
use crate::config::{Size, is_default, unique};

/// Which requests, and what becomes of them. Of the routes that fit a request the first counts in
/// the order of: `priority`, host (exact, the longest wildcard, any), path (exact, regex, the
/// longest prefix, any), `methods`, the number of headers, of cookies and of parameters, and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Route {
    /// Comes before all else; the highest first.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: i32,
    /// Hosts, without port: `www.example.org`, or `*.example.org` for all below; any if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The path, whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whole segments that the path begins with: `/api` fits `/api` and `/api/x`, not `/apix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// An expression that matches the path, from its beginning to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<String>,
    /// Methods; any if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// What headers must be; all of them.
    #[serde(
        deserialize_with = "unique::map",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub headers: BTreeMap<String, TextMatch>,
    /// What cookies must be; all of them.
    #[serde(
        deserialize_with = "unique::map",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub cookies: BTreeMap<String, TextMatch>,
    /// What parameters of the query must be; all of them.
    #[serde(
        deserialize_with = "unique::map",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub query: BTreeMap<String, TextMatch>,

    /// The pool that serves it; the service's if nothing else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Pools that share it, each with its weight, 0 to 65,535.
    #[serde(
        deserialize_with = "unique::map",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub pools: BTreeMap<String, u16>,
    /// Where the client is sent instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// What is answered instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respond: Option<Answer>,
    /// What the backend is asked instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// Changes to the request's headers, after the service's.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub request_headers: HeaderChanges,
    /// Changes to the answer's headers, after the service's.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub response_headers: HeaderChanges,
    /// A pool that gets copies of requests; its answers are thrown away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,

    /// In the place of the service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// In the place of the service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_on: Option<Key>,
    /// In the place of the service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// Where they differ from the service's.
    #[serde(skip_serializing_if = "is_default")]
    pub timeouts: RouteTimeouts,
    /// In the place of the service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// As well as the service's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,
    /// In the place of the service's `limits.body_size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_size: Option<Size>,
}

impl Route {
    /// Names of the pools that it leads to, its mirror's too.
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        (self.pool.iter())
            .chain(self.pools.keys())
            .chain(self.mirror.iter().map(|mirror| &mirror.pool))
            .map(String::as_str)
    }
}

/// Where a client is sent; what is not set stays as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redirect {
    /// Status code: 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The scheme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The host, without port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port; if neither it nor the scheme is set, it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path, whole; with a query of its own if it has a `?`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// In the place of the route's `path_prefix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
}

impl Default for Redirect {
    fn default() -> Redirect {
        Redirect {
            status: 308,
            scheme: None,
            host: None,
            port: None,
            path: None,
            path_prefix: None,
        }
    }
}

/// A URL's scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

/// What a backend is asked instead; what is not set stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rewrite {
    /// The path, whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// In the place of the route's `path_prefix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// The path, with `$1`, `${name}` for what groups of the route's `path_regex` matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<String>,
    /// The host, with a port if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// Changes to headers: first `remove`, then `set`, then `add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderChanges {
    /// Names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Values in the place of what is there.
    #[serde(
        deserialize_with = "unique::map",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub set: BTreeMap<String, String>,
    /// Values beside what is there.
    #[serde(
        deserialize_with = "unique::map",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub add: BTreeMap<String, String>,
}

impl HeaderChanges {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        is_default(self)
    }
}

/// Copies of requests for another pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// The pool.
    pub pool: String,
    /// Share of the requests, 1 to 100.
    #[serde(default = "all")]
    pub percent: u32,
}

fn all() -> u32 {
    100
}
