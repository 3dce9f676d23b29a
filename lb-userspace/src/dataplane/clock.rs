//! The packet path's clock.

use std::io;

use lb_common::abi::TICK_NS;
use nix::time::{ClockId, clock_gettime};

/// Now, in [`TICK_NS`] units.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn tick() -> io::Result<u32> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?;
    let nanoseconds = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
    Ok((nanoseconds / TICK_NS) as u32)
}
