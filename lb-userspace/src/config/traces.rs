//! Where the HTTP proxy's spans go.

use serde::{Deserialize, Serialize};

/// A collector of OpenTelemetry's, which gets the spans of traced requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// Where it listens for OTLP over gRPC: `http://HOST:PORT`, or `https://` for TLS.
    pub endpoint: String,
    /// The name of this service in the collector.
    #[serde(default = "service_name")]
    pub service_name: String,
    /// Spans that may wait for it, 1 to 1,000,000; more are dropped, and counted.
    #[serde(default = "queue")]
    pub queue: u32,
}

fn service_name() -> String {
    "weir".to_owned()
}

fn queue() -> u32 {
    8192
}
