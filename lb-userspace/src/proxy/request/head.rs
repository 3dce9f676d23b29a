//! What a backend is asked, without the body.

use hyper::{HeaderMap, Method, Uri};

/// The head of a request to a backend: of every try, over whichever version of HTTP.
#[derive(Clone)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    /// Of which the path and query count.
    pub(crate) uri: Uri,
    /// With `Host`.
    pub(crate) headers: HeaderMap,
}
