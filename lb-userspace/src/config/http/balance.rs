//! Which backend a request goes to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a request's backend is chosen; weights count in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Each in turn.
    RoundRobin,
    /// Of two the one with fewer requests in flight for its weight.
    #[default]
    LeastRequests,
    /// By a hash of `hash_on`: the same Maglev table as at L4.
    ConsistentHash,
    /// By requests in flight and latency, as in Prequal (NSDI'24).
    Latency,
}

/// A cookie that keeps a session with its backend. Its value is a keyed hash of the backend's
/// name, which says nothing to those who do not have the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sticky {
    /// Whether they stay; a route says so where its service's do and its own do not.
    pub enabled: bool,
    /// The cookie's name.
    pub cookie: String,
    /// `Path`.
    pub path: String,
    /// `Domain`, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// `Max-Age`, in whole seconds; if absent, the cookie ends with the browser's session.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// `Secure`; if not set, where the client speaks TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `SameSite`.
    pub same_site: SameSite,
}

impl Default for Sticky {
    fn default() -> Sticky {
        Sticky {
            enabled: true,
            cookie: "weir".to_owned(),
            path: "/".to_owned(),
            domain: None,
            max_age: None,
            secure: None,
            http_only: true,
            same_site: SameSite::default(),
        }
    }
}

/// A cookie's `SameSite`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Sent from the site itself, and by links to it.
    #[default]
    Lax,
    /// Sent from the site itself.
    Strict,
    /// Sent from everywhere; browsers then want `Secure`.
    None,
}
