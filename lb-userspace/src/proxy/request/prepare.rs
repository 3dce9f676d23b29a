//! What is made of a request before it goes to a backend: one host, no headers of this hop, a
//! route, and what backends are told of the client.

use std::net::IpAddr;

use hyper::{Version, header::HeaderValue, http::request::Parts};

use super::{Reply, answer, answer::Refusal};
use crate::{
    config::http::Scheme,
    proxy::{
        client::Link,
        headers::{
            authority::{self, BadTarget},
            connection,
            forwarded::Hop,
        },
        route::{self, Action, Route},
        snapshot::Service,
    },
};

/// A request that can go on.
pub(super) struct Ready<'a> {
    /// Its route.
    pub(super) route: &'a Route,
    /// The service's pool that it goes to, by number.
    pub(super) pool: usize,
    /// What a backend is chosen by, where that is a hash.
    pub(super) hash: u64,
    /// The protocol that the client wants to go on with.
    pub(super) upgrade: Option<HeaderValue>,
    /// Its id.
    pub(super) id: Option<HeaderValue>,
}

/// What becomes of a request.
pub(super) enum Outcome<'a> {
    /// It goes on.
    Ready(Ready<'a>),
    /// It is answered by the configuration.
    Answer(Box<hyper::Response<Reply>>),
}

/// Makes a request what a backend is to get.
///
/// # Errors
///
/// It is refused.
pub(super) fn prepare<'a>(
    link: &Link,
    service: &'a Service,
    parts: &mut Parts,
) -> Result<Outcome<'a>, Refusal> {
    let http = &*service.http;
    let upgrade = connection::upgrade(parts, &http.upgrades);
    authority::reconcile(parts).map_err(|wrong| match wrong {
        BadTarget::Connect => Refusal::Connect,
        _ => Refusal::Malformed("The request's host or target is not what it should be."),
    })?;
    let peer = link.peer.ip();
    let client = http.forwarded.client(&parts.headers, peer);
    connection::strip_request(&mut parts.headers)
        .map_err(|_| Refusal::Malformed("The request's Connection header is not accepted."))?;
    if http.normalize_path {
        normalize(parts)?;
    }
    let route = service.routes.find(&seen(parts));
    if let Some(answer) = own_answer(link, parts, route) {
        return Ok(Outcome::Answer(Box::new(answer)));
    }
    let hash = hash(link, parts, route, client);
    change(link, service, parts, route);
    let trusted = http.forwarded.trusts(peer);
    let ids = service.request_ids.as_ref();
    let id = ids.map(|ids| ids.apply(&mut parts.headers, trusted));
    http.trace.begin(&mut parts.headers);
    Ok(Outcome::Ready(Ready {
        route,
        pool: choose(&service.targets[route.number]),
        hash,
        upgrade,
        id,
    }))
}

/// A request as routes see it.
fn seen(parts: &Parts) -> route::Request<'_> {
    route::Request {
        method: &parts.method,
        host: authority::host(&parts.headers),
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
    }
}

fn normalize(parts: &mut Parts) -> Result<(), Refusal> {
    let bad = Refusal::Malformed("The request's path is not what it should be.");
    let path = route::normalize(parts.uri.path()).map_err(|_| bad)?;
    if let std::borrow::Cow::Owned(mut path) = path {
        if let Some(query) = parts.uri.query() {
            path.push('?');
            path.push_str(query);
        }
        parts.uri = path.try_into().map_err(|_| bad)?;
    }
    Ok(())
}

fn own_answer(link: &Link, parts: &Parts, route: &Route) -> Option<hyper::Response<Reply>> {
    match &route.action {
        Action::Service | Action::Pools(_) => None,
        Action::Respond(fixed) => Some(answer::fixed(fixed)),
        Action::Redirect(redirect) => {
            let scheme = match link.is_tls() {
                true => Scheme::Https,
                false => Scheme::Http,
            };
            let host = authority::host(&parts.headers);
            let to = redirect.location(scheme, host, parts.uri.path(), parts.uri.query());
            Some(match to {
                Ok(location) => answer::redirect(redirect.status, location),
                Err(_) => Refusal::Malformed("The request names no host.").answer(),
            })
        }
    }
}

fn hash(link: &Link, parts: &Parts, route: &Route, client: IpAddr) -> u64 {
    use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
    if route.balance != crate::config::http::Balance::ConsistentHash {
        return 0;
    }
    let value = route.hash_on.value(client, &seen(parts));
    match value {
        // The same on every node and after every start: no random keys.
        Some(value) => BuildHasherDefault::<DefaultHasher>::default().hash_one(&*value),
        None => crate::dataplane::identity_at(link.peer.ip(), 0),
    }
}

/// The configuration's changes, and who the client is.
fn change(link: &Link, service: &Service, parts: &mut Parts, route: &Route) {
    let host = authority::host(&parts.headers).to_owned();
    route.request_headers.apply(&mut parts.headers);
    if let Some(rewrite) = &route.rewrite {
        if let Some(path) = rewrite.path(parts.uri.path(), parts.uri.query()) {
            parts.uri = path.into();
        }
        if let Some(host) = &rewrite.host {
            authority::set_host(&mut parts.headers, host);
        }
    }
    let hop = Hop {
        peer: link.peer.ip(),
        local: link.listener.address(),
        tls: link.is_tls(),
        host: &host,
    };
    service.http.forwarded.apply(&mut parts.headers, &hop);
    let identity = service.tls.as_ref().and_then(|tls| tls.identity.as_ref());
    if let (Some(headers), Some(identity)) = (identity, &*link.identity()) {
        headers.apply(&mut parts.headers, identity);
    }
    parts.version = Version::HTTP_11;
}

/// One of some pools, by weight.
fn choose(targets: &[(usize, u16)]) -> usize {
    match targets {
        [] => 0,
        [(only, _)] => *only,
        _ => {
            let sum: u32 = targets.iter().map(|(_, weight)| u32::from(*weight)).sum();
            let mut drawn = fastrand::u32(..sum.max(1));
            for (pool, weight) in targets {
                match drawn.checked_sub(u32::from(*weight)) {
                    Some(rest) => drawn = rest,
                    None => return *pool,
                }
            }
            targets[0].0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn pools_get_their_share() {
        assert_eq!(choose(&[]), 0);
        assert_eq!(choose(&[(3, 1)]), 3);
        let mut counts = [0; 3];
        for _ in 0..10_000 {
            counts[choose(&[(0, 0), (1, 1), (2, 9)])] += 1;
        }
        assert_eq!(counts[0], 0);
        assert!((700..1300).contains(&counts[1]), "{counts:?}");
    }
}
