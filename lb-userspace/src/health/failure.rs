//! Why a check failed, in the words that operators read.

use std::{error::Error, io, ops::RangeInclusive, time::Duration};

use nix::errno::Errno;
use thiserror::Error;

/// Why a check did not pass.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// This host could not do the check: says nothing about the backend.
    #[error("cannot check: {}", words(.0))]
    Local(io::Error),
    #[error("connect: {}", words(.0))]
    Connect(io::Error),
    #[error("timed out after {after:?} waiting for the {missing}")]
    TimedOut {
        after: Duration,
        missing: &'static str,
    },
    #[error("request: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("response: {}", words(.0))]
    Response(#[from] hyper::Error),
    #[error("status {actual}, expected {}", range(.expected))]
    Status {
        actual: u16,
        expected: RangeInclusive<u16>,
    },
    #[error("body does not contain {wanted:?}{}", if *.cut { " in its first 64 KiB" } else { "" })]
    Body { wanted: String, cut: bool },
}

impl Failure {
    /// Of a socket that did not get connected.
    pub(super) fn connect(error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            // No port is left, or no memory.
            Some(
                Errno::EAGAIN
                | Errno::EADDRINUSE
                | Errno::EADDRNOTAVAIL
                | Errno::ENOBUFS
                | Errno::ENOMEM,
            ) => Self::Local(error),
            _ => Self::Connect(error),
        }
    }
}

/// The error and its causes, the system's errors without their numbers.
fn words(error: &(dyn Error + 'static)) -> String {
    let text = match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error)
    {
        Some(code) => Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    };
    match error.source() {
        Some(cause) => format!("{text}: {}", words(cause)),
        None => text,
    }
}

fn range(statuses: &RangeInclusive<u16>) -> String {
    let (first, last) = (statuses.start(), statuses.end());
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_host_lacks_is_not_the_backends_failure() {
        let failure = |errno| Failure::connect(io::Error::from_raw_os_error(errno as i32));
        for errno in [Errno::EADDRNOTAVAIL, Errno::EAGAIN, Errno::ENOBUFS] {
            assert!(matches!(failure(errno), Failure::Local(_)), "{errno}");
        }
        for errno in [Errno::ECONNREFUSED, Errno::EHOSTUNREACH, Errno::ETIMEDOUT] {
            assert!(matches!(failure(errno), Failure::Connect(_)), "{errno}");
        }
    }

    #[test]
    fn reads_as_operators_say_it() {
        let refused = io::Error::from_raw_os_error(Errno::ECONNREFUSED as i32);
        assert_eq!(
            Failure::connect(refused).to_string(),
            "connect: connection refused"
        );
        let status = |expected| Failure::Status {
            actual: 503,
            expected,
        };
        assert_eq!(
            status(200..=299).to_string(),
            "status 503, expected 200-299"
        );
        assert_eq!(status(200..=200).to_string(), "status 503, expected 200");
    }
}
