//! The access log.

use serde::{Deserialize, Serialize};

/// A line for each request, or for some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// Form of a line.
    pub format: LogFormat,
    /// `stdout`, or the absolute path of a file, which is opened anew on SIGHUP.
    pub to: String,
    /// One request in so many is logged, 1 to 1,000,000; those that end in an error of the
    /// server or the proxy (5xx) always.
    pub one_in: u32,
}

impl Default for AccessLog {
    fn default() -> AccessLog {
        AccessLog {
            format: LogFormat::default(),
            to: "stdout".to_owned(),
            one_in: 1,
        }
    }
}

/// Form of the access log's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// An object a line, with everything that is known.
    #[default]
    Json,
    /// Apache's and nginx's combined format.
    Combined,
}
