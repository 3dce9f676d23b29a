//! The part of a request by which it is hashed or counted.

use std::{borrow::Cow, net::IpAddr};

use super::{Request, conditions::parameters, without_port};
use crate::{config::http::Key, proxy::cookies::cookie};

impl Key {
    /// The value that a request has; `client` is the client's address. Hosts are in lower case.
    pub fn value<'a>(&'a self, client: IpAddr, request: &Request<'a>) -> Option<Cow<'a, [u8]>> {
        let bytes = |text: Cow<'a, str>| match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        match self {
            Key::Address => Some(Cow::Owned(match client.to_canonical() {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            })),
            Key::Host => {
                let host = without_port(request.host).to_ascii_lowercase();
                Some(Cow::Owned(host.into_bytes()))
            }
            Key::Path => Some(Cow::Borrowed(request.path.as_bytes())),
            Key::Header(name) => request
                .headers
                .get(name)
                .map(|value| value.as_bytes().into()),
            Key::Cookie(name) => cookie(request.headers, name).map(|value| value.as_bytes().into()),
            Key::Query(name) => parameters(request.query, name).next().map(bytes),
        }
    }
}
