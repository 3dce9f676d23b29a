//! How long things may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long things may take, 10 ms to 1 day each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Client: the PROXY header and the TLS handshake.
    #[serde(with = "humantime_serde")]
    pub handshake: Duration,
    /// Client: from a request's first byte to the end of its headers; also a new connection's
    /// wait for its first request.
    #[serde(with = "humantime_serde")]
    pub header: Duration,
    /// Client: between two pieces of a request's body.
    #[serde(with = "humantime_serde")]
    pub body: Duration,
    /// Client: how long a connection may be without a request.
    #[serde(with = "humantime_serde")]
    pub keepalive: Duration,
    /// Backend: to connect, TLS included.
    #[serde(with = "humantime_serde")]
    pub connect: Duration,
    /// Backend: from the end of the request to the headers of the answer.
    #[serde(with = "humantime_serde")]
    pub response: Duration,
    /// Both: how long an answer may stand still.
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    /// Both: how long a tunnel (an upgraded connection) may be silent.
    #[serde(with = "humantime_serde")]
    pub tunnel: Duration,
    /// What is under way when Weir stops or the service is removed: how long it may go on.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// The whole exchange with all its tries; no limit if absent.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        let secs = Duration::from_secs;
        Timeouts {
            handshake: secs(10),
            header: secs(15),
            body: secs(30),
            keepalive: secs(60),
            connect: secs(3),
            response: secs(60),
            idle: secs(60),
            tunnel: secs(3600),
            drain: secs(30),
            total: None,
        }
    }
}

/// Where a route's differ from the service's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteTimeouts {
    /// See [`Timeouts::response`].
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub response: Option<Duration>,
    /// See [`Timeouts::idle`].
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
    /// See [`Timeouts::tunnel`].
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Duration>,
    /// See [`Timeouts::total`].
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub total: Option<Duration>,
}
