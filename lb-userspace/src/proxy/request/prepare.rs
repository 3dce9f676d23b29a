//! What is made of a request before it goes to a backend: one host, no headers of this hop, a
//! route, and what backends are told of the client.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use hyper::{
    Version,
    header::{HOST, HeaderValue},
    http::request::Parts,
};
use siphasher::sip::SipHasher13;

use super::{Reply, answer, answer::Refusal};
use crate::{
    config::http::Scheme,
    desired::Condition,
    proxy::{
        client::Link,
        headers::{
            authority::{self, BadTarget},
            connection,
            forwarded::Hop,
            trace::Span,
        },
        limits,
        route::{self, Action, Route},
        snapshot::{Member, Service},
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
    /// The backend that its session stays with, by its place in the pool.
    pub(super) stays: Option<u32>,
    /// Who asks.
    pub(super) client: IpAddr,
    /// What is traced of it, if it is.
    pub(super) span: Option<Span>,
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
    limit(service, route, parts, client)?;
    if let Some(answer) = own_answer(link, parts, route) {
        return Ok(Outcome::Answer(Box::new(answer)));
    }
    let hash = hash(link, parts, route, client);
    change(link, service, parts, route);
    let trusted = http.forwarded.trusts(peer);
    let ids = service.request_ids.as_ref();
    let id = ids.map(|ids| ids.apply(&mut parts.headers, trusted));
    let span = http.trace.begin(&mut parts.headers);
    let stays = session(service, route, parts);
    Ok(Outcome::Ready(Ready {
        route,
        pool: stays.map_or_else(|| choose(&service.targets[route.number]), |(pool, _)| pool),
        hash,
        stays: stays.map(|(_, place)| place),
        client,
        span,
        upgrade,
        id,
    }))
}

/// Counts the request where that is limited.
fn limit(service: &Service, route: &Route, parts: &Parts, client: IpAddr) -> Result<(), Refusal> {
    let rates = &service.rates[route.number];
    if rates.is_empty() {
        return Ok(());
    }
    let now = Instant::now();
    let who = limits::client_of(client);
    let request = seen(parts);
    for rate in rates {
        // Those who lack what is counted by are not limited.
        let Some(key) = rate.config.key.value(who, &request) else {
            continue;
        };
        // In whole seconds, and never too early.
        let wait = |wait: Duration| Refusal::TooMany(wait.as_secs() + 1);
        rate.limiter.take(&key, now).map_err(wait)?;
    }
    Ok(())
}

/// The pool and backend that a session stays with, if it may still be given requests; one that
/// drains may.
fn session(service: &Service, route: &Route, parts: &Parts) -> Option<(usize, u32)> {
    let cookie = service.cookies[route.number].as_ref()?;
    let token = cookie.read(&parts.headers)?;
    let own = [(0, 1)];
    let targets = match &*service.targets[route.number] {
        [] => &own[..],
        targets => targets,
    };
    targets.iter().find_map(|(number, _)| {
        let pool = service.pools.get(*number)?;
        let has =
            |member: &Member| member.backend.token == token && member.condition != Condition::Dead;
        let place = pool.members.iter().position(has)?;
        Some((*number, u32::try_from(place).ok()?))
    })
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
    if route.balance != crate::config::http::Balance::ConsistentHash {
        return 0;
    }
    let value = route.hash_on.value(client, &seen(parts));
    match value {
        // The same on every node and in every build: no random keys, and a named algorithm.
        Some(value) => SipHasher13::new().hash(&value),
        None => crate::dataplane::identity_at(link.peer.ip(), 0),
    }
}

/// The configuration's changes, and who the client is.
fn change(link: &Link, service: &Service, parts: &mut Parts, route: &Route) {
    let host = parts.headers.get(HOST).cloned();
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
        peer_text: link.peer_text(),
        port: link.listener.port(),
        tls: link.is_tls(),
        host: host.as_ref(),
    };
    service.http.forwarded.apply(&mut parts.headers, &hop);
    let identity = service.tls.as_ref().and_then(|tls| tls.identity.as_ref());
    if let (Some(headers), Some(identity)) = (identity, &*link.identity()) {
        headers.apply(&mut parts.headers, identity);
    }
    if let Some(via) = &service.via {
        via.apply(&mut parts.headers, parts.version);
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
