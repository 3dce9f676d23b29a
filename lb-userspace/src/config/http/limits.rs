//! How much and how often clients may ask.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Key;
use crate::config::Size;

/// How much clients may send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Headers of a request, 1 to 1,000; more: 431.
    pub headers: u32,
    /// Bytes of a request's line and headers together, 1 KiB to 1 MiB; more: 431.
    pub header_size: Size,
    /// Bytes of a request's body; more: 413. No limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_size: Option<Size>,
    /// Requests of a connection, 1 to 1,000,000,000; then it is closed. No limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_connection: Option<u32>,
    /// Connections of one address at a time, 1 to 1,000,000; more are closed at once. No limit
    /// if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_client: Option<u32>,
    /// HTTP/2: requests of a connection at a time, 1 to 10,000.
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            headers: 100,
            header_size: Size::kib(32),
            body_size: None,
            requests_per_connection: None,
            connections_per_client: None,
            streams: 100,
        }
    }
}

/// How often those who have the same `key` may ask: a token bucket. More: 429 with Retry-After.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Who is counted as one; requests that lack it are not limited.
    #[serde(default = "address")]
    pub key: Key,
    /// Requests in `per`, 1 to 1,000,000.
    pub requests: u32,
    /// The time, 1 s to 1 day.
    #[serde(default = "second", with = "humantime_serde")]
    pub per: Duration,
    /// Requests that may come at once, 1 to 1,000,000; `requests` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

impl RateLimit {
    /// Requests that may come at once.
    pub fn burst(&self) -> u32 {
        self.burst.unwrap_or(self.requests)
    }
}

fn address() -> Key {
    Key::Address
}

fn second() -> Duration {
    Duration::from_secs(1)
}
