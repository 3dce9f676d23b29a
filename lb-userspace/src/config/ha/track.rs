//! What lowers a group's priority.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Something that a node needs to serve well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Track {
    /// What is watched.
    #[serde(rename = "type")]
    pub kind: TrackKind,
    /// How much the priority is lowered by while it fails, 1 to 254; it never falls below 1.
    pub lower_by: u8,
    /// `interface`, `xdp`: which; the group's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// `service`: which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `command`: the program and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// `command`: from one start to the next, 50 ms to 1 h.
    #[serde(default = "interval", with = "humantime_serde")]
    pub interval: Duration,
    /// `command`: how long it may take, 10 ms to 1 h.
    #[serde(default = "timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// `command`: passes in a row until it counts as passing, 1 to 100.
    #[serde(default = "rise")]
    pub rise: u32,
    /// `command`: failures in a row until it counts as failing, 1 to 100.
    #[serde(default = "fall")]
    pub fall: u32,
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackKind {
    /// An interface is up and has carrier.
    Interface,
    /// An interface has an XDP program.
    Xdp,
    /// A service has a healthy backend.
    Service,
    /// A command ends with status 0.
    Command,
}

fn interval() -> Duration {
    Duration::from_secs(2)
}

fn timeout() -> Duration {
    Duration::from_secs(1)
}

fn rise() -> u32 {
    1
}

fn fall() -> u32 {
    2
}
