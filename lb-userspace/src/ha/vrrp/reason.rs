//! Why a role changed.

use std::{net::IpAddr, time::Duration};

use humantime::format_duration;
use thiserror::Error;

/// Why a role changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// Everything that it takes to speak is there.
    #[error("the links are up")]
    Ready,
    /// Priority 255, at the start.
    #[error("owns the addresses")]
    Owns,
    /// The agent before this one was active, and has told this one.
    #[error("goes on for the agent before this one")]
    GoesOn,
    /// Nobody has been heard for long enough.
    #[error("no advertisement for {}", format_duration(millis(*.0)))]
    Silence(Duration),
    /// The one that was active gave up.
    #[error("{0} gave up")]
    Resigned(IpAddr),
    /// The one that was active is of lower priority.
    #[error("takes over from {0}, whose priority is {1}")]
    Preempts(IpAddr, u8),
    /// Another is active, and of higher priority or, if that is equal, of higher address.
    #[error("{0} is active with priority {1}")]
    Outranked(IpAddr, u8),
    /// A link is down, or has no address to speak from.
    #[error("a link is down or has no address")]
    Mute,
    /// The operator said so.
    #[error("handed over")]
    HandedOver,
    /// This node did not run for so long that others have taken over.
    #[error("did not run for {}", format_duration(millis(*.0)))]
    Overslept(Duration),
    /// The agent ends.
    #[error("the agent is ending")]
    Ending,
}

/// Whole milliseconds.
fn millis(time: Duration) -> Duration {
    Duration::from_millis(time.as_millis() as u64)
}
