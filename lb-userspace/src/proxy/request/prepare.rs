//! What is made of a request before it goes to a backend: one host, no headers of this hop, a
//! route, and what backends are told of the client.

use std::{
    net::IpAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use hyper::{
    Version,
    header::{CONNECTION, HOST, HeaderValue, UPGRADE},
    http::request::Parts,
};
use siphasher::sip::SipHasher13;

use super::{Reply, Told, answer, answer::Refusal};
use crate::{
    config::http::Scheme,
    desired::Condition,
    proxy::{
        client::Link,
        headers::{
            authority::{self, BadTarget},
            connection,
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
    /// Whether the client wants to go on with another protocol.
    pub(super) upgrade: bool,
    /// Its id.
    pub(super) id: Option<HeaderValue>,
    /// What backends are told of who asks, where that is not in its headers.
    pub(super) told: Option<Told>,
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
    link: &Rc<Link>,
    service: &'a Service,
    parts: &mut Parts,
) -> Result<Outcome<'a>, Refusal> {
    let http = &*service.http;
    // Few have any.
    let of_this_hop = connection::has_any(&parts.headers);
    let upgrade = match of_this_hop {
        true => connection::upgrade(parts, &http.upgrades),
        false => None,
    };
    authority::reconcile(parts).map_err(|wrong| match wrong {
        BadTarget::Connect => Refusal::Connect,
        _ => Refusal::Malformed("The request's host or target is not what it should be."),
    })?;
    let peer = link.peer.ip();
    let client = http.forwarded.client(&parts.headers, peer);
    if of_this_hop {
        connection::strip_request(&mut parts.headers)
            .map_err(|_| Refusal::Malformed("The request's Connection header is not accepted."))?;
    }
    if http.normalize_path {
        normalize(parts)?;
    }
    let route = service.routes.find(&seen(parts));
    limit(service, route, parts, client)?;
    if let Some(answer) = own_answer(link, parts, route) {
        return Ok(Outcome::Answer(Box::new(answer)));
    }
    let hash = hash(link, parts, route, client);
    let told = change(link, service, parts, route);
    let trusted = http.forwarded.trusts(peer);
    let ids = service.request_ids.as_ref();
    let id = ids.map(|ids| ids.apply(&mut parts.headers, trusted));
    let span = http.trace.begin(&mut parts.headers);
    let stays = session(service, route, parts);
    let upgrades = upgrade.is_some();
    if let Some(protocol) = upgrade {
        let headers = &mut parts.headers;
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    Ok(Outcome::Ready(Ready {
        route,
        pool: stays.map_or_else(|| choose(&service.targets[route.number]), |(pool, _)| pool),
        hash,
        stays: stays.map(|(_, place)| place),
        client,
        span,
        upgrade: upgrades,
        id,
        told,
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

/// Who the client is, and the configuration's changes, which come after what it says itself and
/// before what Weir does: what is told of it where that is not in the headers.
fn change(link: &Rc<Link>, service: &Service, parts: &mut Parts, route: &Route) -> Option<Told> {
    let told = Told {
        link: link.clone(),
        host: parts.headers.get(HOST).cloned(),
    };
    let (forwarded, peer) = (&service.http.forwarded, link.peer.ip());
    forwarded.strip(&mut parts.headers, peer);
    route.request_headers.apply(&mut parts.headers);
    if let Some(rewrite) = &route.rewrite {
        if let Some(path) = rewrite.path(parts.uri.path(), parts.uri.query()) {
            parts.uri = path.into();
        }
        if let Some(host) = &rewrite.host {
            authority::set_host(&mut parts.headers, host);
        }
    }
    let beside = forwarded.is_plain(peer) && route.request_headers.is_empty();
    if !beside {
        forwarded.add(&mut parts.headers, &told.hop());
    }
    let identity = service.tls.as_ref().and_then(|tls| tls.identity.as_ref());
    if let (Some(headers), Some(identity)) = (identity, &*link.identity()) {
        headers.apply(&mut parts.headers, identity);
    }
    if let Some(via) = &service.via {
        via.apply(&mut parts.headers, parts.version);
    }
    parts.version = Version::HTTP_11;
    beside.then_some(told)
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
