//! How the L7 proxy speaks to a pool's backends, and when it gives one a rest.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::config::{Certificate, TlsVersion};

/// What matters of a pool to the L7 proxy only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolHttp {
    /// The version of HTTP that backends speak.
    pub version: HttpVersion,
    /// TLS to the backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// PROXY header at the start of connections; each client then has connections of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Idle connections that a worker keeps to a backend, 0 to 10,000.
    pub keep_idle: u32,
    /// How long an idle connection is kept, 10 ms to 1 day.
    #[serde(with = "humantime_serde")]
    pub keepalive: Duration,
    /// What a backend may be given at a time.
    pub circuit_breaker: CircuitBreaker,
    /// When a backend that answers badly is left out for a while; never if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outliers: Option<Outliers>,
}

impl Default for PoolHttp {
    fn default() -> PoolHttp {
        PoolHttp {
            version: HttpVersion::default(),
            tls: None,
            proxy_protocol: None,
            keep_idle: 1024,
            keepalive: Duration::from_secs(60),
            circuit_breaker: CircuitBreaker::default(),
            outliers: Some(Outliers::default()),
        }
    }
}

/// The version of HTTP that backends speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpVersion {
    /// With TLS what ALPN says, else HTTP/1.1.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// HTTP/1.1.
    #[serde(rename = "1.1")]
    Http11,
    /// HTTP/2: with TLS by ALPN, else from the first byte (gRPC needs it).
    #[serde(rename = "2")]
    Http2,
}

/// TLS to the backends; their certificates are always verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackendTls {
    /// PEM file of the authorities that are believed; the system's if absent. Read again when
    /// it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The name that is asked for (SNI) and that the certificate must have; the backend's address
    /// if absent, without SNI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// What Weir shows to backends that ask for a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary, with what is known of TLS.
    V2,
}

/// What a backend may be given at a time, by all workers together; no limit where absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CircuitBreaker {
    /// Connections, 1 to 1,000,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Requests that wait for a connection, 1 to 1,000,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<u32>,
    /// Requests in flight, 1 to 1,000,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
}

/// When a backend that answers badly is left out; the pool's `health_floor_percent` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outliers {
    /// Answers of 500 to 599 in a row, 1 to 10,000; not counted if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<u32>,
    /// Connections in a row that could not be made or broke before an answer, 1 to 10,000; not
    /// counted if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// How many times the pool's median a backend's latency may be, 2 to 1,000; not watched if
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_factor: Option<u32>,
    /// How long the first time, 1 s to 1 h; twice as long each time after, if it comes again.
    #[serde(with = "humantime_serde")]
    pub rest: Duration,
    /// How long at most, 1 s to 1 day.
    #[serde(with = "humantime_serde")]
    pub max_rest: Duration,
}

impl Default for Outliers {
    fn default() -> Outliers {
        Outliers {
            errors: Some(5),
            failures: Some(5),
            latency_factor: None,
            rest: Duration::from_secs(10),
            max_rest: Duration::from_secs(300),
        }
    }
}
