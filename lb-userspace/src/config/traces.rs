//! Where the HTTP proxy's spans go.

use serde::{Deserialize, Serialize};

/// A collector of OpenTelemetry's, which gets the spans of traced requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// Where it listens for OTLP: `http://HOST:PORT`, or `https://` for TLS; over HTTP with the
    /// path where it is not `/v1/traces`.
    pub endpoint: String,
    /// What it is spoken over.
    #[serde(default)]
    pub protocol: TracesProtocol,
    /// The name of this service in the collector.
    #[serde(default = "service_name")]
    pub service_name: String,
    /// Spans that may wait for it, 1 to 1,000,000; more are dropped, and counted.
    #[serde(default = "queue")]
    pub queue: u32,
}

/// What OTLP is spoken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TracesProtocol {
    /// gRPC.
    #[default]
    Grpc,
    /// HTTP/1.1, in Protocol Buffers.
    Http,
}

fn service_name() -> String {
    "weir".to_owned()
}

fn queue() -> u32 {
    8192
}
