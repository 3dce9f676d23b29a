//! Waiting for a condition.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// Tries until it succeeds.
///
/// # Errors
/// The last attempt's error, once `limit` is over. There is at least one attempt.
pub fn retry<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error).with_context(|| format!("gave up after {limit:?}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}
