//! What went wrong with HTTP/2, which hyper has from h2.

use std::error::Error as _;

/// h2's error, where hyper's is one.
pub(crate) fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}
