//! Who asks: addresses, ids and traces that come with a request and go on with it.

use serde::{Deserialize, Serialize};

use super::Network;

/// What backends are told of the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Forwarded {
    /// Which headers say it; whatever else clients send of them is removed.
    pub headers: ForwardedHeaders,
    /// Hops whose own such headers are believed: the client is the last address that is not
    /// one of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted: Vec<Network>,
}

impl Default for Forwarded {
    fn default() -> Forwarded {
        Forwarded {
            headers: ForwardedHeaders::XForwarded,
            trusted: Vec::new(),
        }
    }
}

/// Headers that tell backends of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeaders {
    /// `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// Both.
    Both,
    /// None.
    None,
}

/// A request's id, in a header to the backend, in the answer and in the access log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestId {
    /// Whether there is one.
    pub enabled: bool,
    /// Name of the header.
    pub header: String,
    /// Whether an id that trusted hops (`forwarded.trusted`) send is kept.
    pub keep_trusted: bool,
}

impl Default for RequestId {
    fn default() -> RequestId {
        RequestId {
            enabled: true,
            header: "x-request-id".to_owned(),
            keep_trusted: true,
        }
    }
}

/// W3C trace context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trace {
    /// Of the requests that come without a decision of their own, one in so many is traced, 1 to
    /// 1,000,000; if absent, none is. `traceparent` is passed on either way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_in: Option<u32>,
}
