//! What a backend is asked, and what it answers, without the bodies.

use hyper::{HeaderMap, Method, StatusCode, Uri, Version, header::HeaderName};

use crate::proxy::h1::{Lines, is};

/// The head of a request to a backend: of every try, over whichever version of HTTP.
#[derive(Clone)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    /// Of which the path and query count.
    pub(crate) uri: Uri,
    /// With `Host`.
    pub(crate) headers: HeaderMap,
}

/// The head of a backend's answer.
#[derive(Debug)]
pub(crate) struct AnswerHead {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    /// Its headers, or those beside the lines.
    pub(crate) map: HeaderMap,
    /// Those that nobody has looked at, without any of the backend's hop.
    pub(crate) lines: Option<Lines>,
}

impl AnswerHead {
    /// Takes a header from the lines, where the map is to have it.
    pub(crate) fn forget(&mut self, header: &HeaderName) {
        if let Some(lines) = &mut self.lines {
            lines.retain(|name, _| !is(name, header));
        }
    }

    /// All headers, to be looked at or changed.
    pub(crate) fn headers(&mut self) -> &mut HeaderMap {
        if let Some(lines) = self.lines.take() {
            lines.add_to(&mut self.map);
        }
        &mut self.map
    }
}
