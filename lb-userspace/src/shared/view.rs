//! What is shown of the shared configuration.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::AgreementView;
use crate::config::Problem;

/// Where what is in force comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// It is what is in etcd, or was when that was last heard of.
    Etcd,
    /// The copy on disk: nothing usable has been heard of etcd since the agent started.
    Disk,
}

/// How it stands with the shared configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedView {
    /// Where it is.
    pub address: String,
    /// Whether etcd answers.
    pub connected: bool,
    /// Since when it does or does not, in seconds since 1970.
    pub since: u64,
    /// Why etcd does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where what is in force comes from.
    pub origin: Origin,
    /// etcd's revision in which what is in force was written.
    pub revision: i64,
    /// What is in etcd and not in force here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_in_force: Option<NotInForce>,
    /// Why the copy on disk is not up to date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_error: Option<String>,
    /// How it stands with agreeing on health; nothing where each node acts alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<AgreementView>,
}

/// A document that is in etcd and not in force here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotInForce {
    /// In which revision it was written; 0 where there is none.
    pub revision: i64,
    /// Why, on one line.
    pub error: String,
    /// The fields that are wrong, if it is that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl SharedView {
    pub(super) fn new(address: String, origin: Origin, revision: i64) -> Self {
        Self {
            address,
            connected: false,
            since: now(),
            error: None,
            origin,
            revision,
            not_in_force: None,
            copy_error: None,
            health: None,
        }
    }

    /// Notes whether etcd answers; whether that is news.
    pub(super) fn set_connected(&mut self, error: Option<String>) -> bool {
        let connected = error.is_none();
        let news = self.connected != connected;
        if news {
            (self.connected, self.since) = (connected, now());
        }
        self.error = error;
        news
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
