//! What a backend is asked, and what it answers, without the bodies.

use std::rc::Rc;

use hyper::{
    HeaderMap, Method, StatusCode, Uri, Version,
    header::{HeaderName, HeaderValue},
};

use crate::proxy::{
    client::Link,
    h1::{Lines, is},
    headers::forwarded::Hop,
};

/// The head of a request to a backend: of every try, over whichever version of HTTP.
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    /// Of which the path and query count.
    pub(crate) uri: Uri,
    /// With `Host`.
    pub(crate) headers: HeaderMap,
    /// What it is told of the client beside them.
    pub(crate) told: Option<Told>,
}

impl RequestHead {
    /// Headers beside the map, which has none of these names.
    pub(crate) fn beside(&self) -> impl Iterator<Item = (HeaderName, &HeaderValue)> {
        let hop = self.told.as_ref().map(Told::hop);
        hop.into_iter().flat_map(|hop| hop.x_forwarded())
    }

    /// A map of all headers.
    pub(crate) fn all_headers(&self) -> HeaderMap {
        let mut all = self.headers.clone();
        all.extend(self.beside().map(|(name, value)| (name, value.clone())));
        all
    }

    /// The same for somebody who does not hold on to the client's connection.
    pub(super) fn detached(&self) -> RequestHead {
        RequestHead {
            method: self.method.clone(),
            uri: self.uri.clone(),
            headers: self.all_headers(),
            told: None,
        }
    }
}

/// Who asks, in headers that nobody looks up: they are in no map.
pub(crate) struct Told {
    pub(crate) link: Rc<Link>,
    /// The host that it asks for, with its port if it has one.
    pub(crate) host: Option<HeaderValue>,
}

impl Told {
    /// How the request came to Weir.
    pub(crate) fn hop(&self) -> Hop<'_> {
        Hop {
            peer: self.link.peer.ip(),
            peer_text: self.link.peer_text(),
            port: self.link.listener.port(),
            tls: self.link.is_tls(),
            host: self.host.as_ref(),
        }
    }
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
