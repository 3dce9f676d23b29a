//! What is shown of how nodes agree.

use serde::{Deserialize, Serialize};

use crate::shared::view::now;

/// How it stands with agreeing on health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreementView {
    /// Whether this node acts on what the majority says; else on its own checks.
    pub agreed: bool,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// Names of the hosts of all nodes that vote, this one's among them, when that was last heard.
    pub nodes: Vec<String>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl AgreementView {
    pub(super) fn new() -> Self {
        Self {
            agreed: false,
            since: now(),
            nodes: Vec::new(),
            error: None,
        }
    }
}
