//! Answers that the operator writes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An answer that Weir gives itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Status code, 200 to 599.
    pub status: u16,
    /// The body; at most 64 KiB.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// What the body is.
    #[serde(default = "plain_text")]
    pub content_type: String,
    /// What `Retry-After` says, in whole seconds; if absent, there is no such header.
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Option::is_none"
    )]
    pub retry_after: Option<Duration>,
}

fn plain_text() -> String {
    "text/plain; charset=utf-8".to_owned()
}

impl Answer {
    /// What is said, if not told otherwise, when no backend is left.
    pub(super) fn unavailable() -> Answer {
        Answer {
            status: 503,
            body: "No backend is available.\n".to_owned(),
            content_type: plain_text(),
            retry_after: Some(Duration::from_secs(5)),
        }
    }
}
