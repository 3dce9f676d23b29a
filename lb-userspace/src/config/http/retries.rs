//! What is tried again when a backend fails.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Size;

/// What is tried again, each time with another backend if there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Tries after the first, 0 to 10.
    pub attempts: u32,
    /// Failures after which a request is tried again.
    pub on: Vec<RetryOn>,
    /// Status codes (500 to 599) of backends after which an idempotent request is tried again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<u16>,
    /// Retries of a pool at a time, in percent of its requests in flight (and at least 3), 0 to
    /// 100.
    pub budget_percent: u32,
    /// Bytes of a request's body that are kept for another try, 0 to 16 MiB; a longer one is not
    /// tried again once it has begun to be sent.
    pub body_buffer: Size,
    /// How long after it was sent an idempotent request that has no answer yet is sent to another
    /// backend too, 10 ms to 1 day: the first answer counts. Never if absent.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub hedge_after: Option<Duration>,
}

impl Default for Retries {
    fn default() -> Retries {
        Retries {
            attempts: 2,
            on: vec![
                RetryOn::Connect,
                RetryOn::Unprocessed,
                RetryOn::Closed,
                RetryOn::Reset,
            ],
            statuses: Vec::new(),
            budget_percent: 20,
            body_buffer: Size::kib(64),
            hedge_after: None,
        }
    }
}

/// A failure of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetryOn {
    /// No connection could be made. Any request.
    Connect,
    /// The backend says that it did not process the stream (REFUSED_STREAM, or GOAWAY with a
    /// lower one). Any request.
    Unprocessed,
    /// A connection that had served before closed before a byte of the answer. Once; idempotent
    /// requests, and others of which nothing had been sent.
    Closed,
    /// A new connection broke before a byte of the answer. Idempotent requests.
    Reset,
    /// No answer came in time (`timeouts.response`). Idempotent requests.
    Timeout,
}
