//! Agreeing on health.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whether nodes that share their configuration in etcd agree on health, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Whether to act on what the majority of the nodes says of a backend; else on this node's own
    /// checks, and the others do not hear of them.
    pub agree: bool,
    /// For how long this node's word counts without being heard of, and for how long it acts on
    /// the others' without hearing them; 1 s to 10 min in whole seconds.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            agree: true,
            lease: Duration::from_secs(5),
        }
    }
}

impl Health {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
