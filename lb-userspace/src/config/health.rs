//! Health checks and the status codes that they accept.

use std::{
    fmt::{self, Display},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// How a pool's backends are checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// What is asked of a backend.
    #[serde(rename = "type")]
    pub kind: CheckKind,
    /// `http`: what to GET; see [`Self::path`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `http`: the Host header; the backend's address and port if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `http`: codes that pass; see [`Self::status`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusRange>,
    /// `http`: text that the body must contain, 1 to 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_contains: Option<String>,
    /// Port to check; the backend's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// From the start of one check to that of the next, 50 ms to 1 h.
    #[serde(default = "interval", with = "humantime_serde")]
    pub interval: Duration,
    /// How much an interval may be longer or shorter by chance, 0 to 100 % of it.
    #[serde(default = "jitter_percent")]
    pub jitter_percent: u32,
    /// Time that a check may take, 10 ms to 1 h.
    #[serde(default = "timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// Passes in a row that make a dead backend alive, 1 to 100.
    #[serde(default = "rise")]
    pub rise: u32,
    /// Failures in a row that make a live backend dead, 1 to 100.
    #[serde(default = "fall")]
    pub fall: u32,
}

/// What is asked of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// To accept a connection.
    Tcp,
    /// To answer a GET as expected.
    Http,
}

fn interval() -> Duration {
    Duration::from_secs(2)
}

fn jitter_percent() -> u32 {
    10
}

fn timeout() -> Duration {
    Duration::from_secs(1)
}

fn rise() -> u32 {
    2
}

fn fall() -> u32 {
    3
}

impl HealthCheck {
    /// `http`: what to GET, `/` if not set.
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or("/")
    }

    /// `http`: the codes that pass, 200 to 299 if not set.
    pub fn status(&self) -> StatusRange {
        self.status.unwrap_or(StatusRange {
            first: 200,
            last: 299,
        })
    }
}

/// HTTP status codes, written `200` or `200-299`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StatusRange {
    /// First code that passes.
    pub first: u16,
    /// Last code that passes.
    pub last: u16,
}

impl StatusRange {
    /// Whether a code passes.
    pub fn contains(self, code: u16) -> bool {
        (self.first..=self.last).contains(&code)
    }
}

impl Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl From<StatusRange> for String {
    fn from(range: StatusRange) -> String {
        range.to_string()
    }
}

impl TryFrom<String> for StatusRange {
    type Error = &'static str;

    fn try_from(text: String) -> Result<StatusRange, &'static str> {
        let code = |text: &str| text.trim().parse().ok();
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        match (code(first), code(last)) {
            (Some(first), Some(last)) => Ok(StatusRange { first, last }),
            _ => Err(r#"a status such as "200" or a range such as "200-299""#),
        }
    }
}
