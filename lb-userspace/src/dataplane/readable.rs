//! Waiting for the kernel's ring buffers.

use std::{io, os::fd::AsRawFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Waits for `buffer` to have something to read.
///
/// # Errors
///
/// The kernel's. Must be called within a tokio runtime.
pub(crate) fn readable<T: AsRawFd>(buffer: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the buffers of aya own their descriptor and keep it open and the same.
    Ok(unsafe { AsyncFd::register_with_interest(buffer, Interest::READABLE) }?)
}
