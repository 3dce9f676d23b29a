//! From a request to what backends are asked, and from a backend's answer to the client's.

use std::rc::Rc;

use hyper::{
    HeaderMap, Response, StatusCode,
    body::Body as _,
    header::{CACHE_CONTROL, CONNECTION, HeaderValue, SET_COOKIE, UPGRADE},
    http::request::Parts,
};

use super::{
    AnswerHead, RequestHead,
    answer::{self, Refusal, close},
    attempt::Failure,
    body::{BodyError, Source},
    exchange::Exchange,
    mirror::mirror,
    prepare::Ready,
    reply::{FromBackend, Reply},
};
use crate::proxy::{
    client::ClientBody,
    headers::{connection, list::items},
    local::LocalPool,
    route::Route,
    sticky::Token,
    timers::ticks,
    tunnel::Tunnel,
    upstream::Lease,
};

/// A request that is sent on. It is a part of every request's future: what is rare has no place in
/// it.
pub(super) struct Forwarding {
    pub(super) exchange: Exchange,
    /// What backends are asked.
    pub(super) head: RequestHead,
    pub(super) pool: Rc<LocalPool>,
    /// Its route, by number.
    pub(super) route: usize,
    /// What a backend is chosen by, where that is a hash.
    pub(super) hash: u64,
    /// The backend that its session stays with, by its place in the pool.
    pub(super) stays: Option<u32>,
    /// Whether the client wants to go on with another protocol.
    upgrade: bool,
    id: Option<HeaderValue>,
    /// The session that the client's cookie names.
    sent: Option<Token>,
}

impl Forwarding {
    /// What was found of a request.
    ///
    /// # Errors
    ///
    /// The answer, where it is not to be sent on.
    pub(super) fn begin(
        mut exchange: Exchange,
        ready: Ready<'_>,
        parts: Parts,
        incoming: ClientBody,
    ) -> Result<Self, Box<Response<Reply>>> {
        let route = ready.route;
        let cookie = exchange.service.plan.cookies[route.number].as_ref();
        let sent = cookie.and_then(|cookie| cookie.read(&parts.headers));
        exchange.prepared(&ready);
        let head = RequestHead {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            told: ready.told,
        };
        let limit = route.body_size.unwrap_or(u64::MAX);
        if incoming.size_hint().lower() > limit {
            return Err(Box::new(refuse(&mut exchange, Refusal::TooLarge)));
        }
        if !incoming.is_end_stream() {
            let keep = usize::try_from(route.retries.body_buffer.0).unwrap_or(usize::MAX);
            let timers = &exchange.link.worker.timers;
            exchange.source = Some(Source::new(incoming, limit, keep, timers));
        }
        Ok(Self {
            pool: exchange.service.pools[ready.pool].clone(),
            exchange,
            head,
            route: route.number,
            hash: ready.hash,
            stays: ready.stays,
            upgrade: ready.upgrade,
            id: ready.id,
            sent,
        })
    }

    /// The answer, on its way to the client.
    pub(super) fn end(self, answered: Result<(AnswerHead, Lease), Failure>) -> Response<Reply> {
        let Self {
            mut exchange,
            head,
            upgrade,
            id,
            sent,
            ..
        } = self;
        let service = exchange.service.clone();
        let route = &service.plan.routes.routes()[self.route];
        let source = exchange.source.as_ref();
        mirror(&exchange.link, &service, route, &head, source);
        let mut cookie = None;
        let mut response = match answered {
            Ok((mut answer, lease)) => {
                if let Some(via) = &service.plan.via {
                    let version = answer.version;
                    via.apply(answer.headers(), version);
                }
                cookie = session_cookie(&exchange, route, sent);
                // Whatever may be looked for, or changed.
                if cookie.is_some() || !route.response_headers.is_empty() {
                    answer.headers();
                } else if let Some(ids) = &service.plan.request_ids {
                    answer.forget(ids.header());
                }
                from_backend(exchange, route, answer, lease, upgrade)
            }
            Err(Failure::Breaker) => {
                let response = answer::fixed(&service.plan.unavailable);
                exchange.answered_here(response.status().as_u16());
                response
            }
            Err(failure) => refuse(&mut exchange, refusal(&failure)),
        };
        if let Some(cookie) = cookie {
            response.headers_mut().append(SET_COOKIE, cookie);
            keep_private(response.headers_mut());
        }
        route.response_headers.apply(response.headers_mut());
        if let (Some(ids), Some(id)) = (&service.plan.request_ids, id) {
            response.headers_mut().insert(ids.header(), id);
        }
        response
    }
}

/// The cookie for the client's session to come back, unless it has it already.
fn session_cookie(exchange: &Exchange, route: &Route, sent: Option<Token>) -> Option<HeaderValue> {
    let cookie = exchange.service.plan.cookies[route.number].as_ref()?;
    let token = exchange.backend()?.token;
    (sent != Some(token)).then(|| cookie.set(token, exchange.link.is_tls()))?
}

/// Keeps an answer with one client's cookie out of the caches that clients share (RFC 9111,
/// section 5.2.2.7).
fn keep_private(headers: &mut HeaderMap) {
    let keeps = |directive: &[u8]| {
        // With names of headers, `private` is about these alone.
        ["private", "no-store"]
            .iter()
            .any(|whole| directive.eq_ignore_ascii_case(whole.as_bytes()))
    };
    if !items(headers, &CACHE_CONTROL).any(keeps) {
        headers.append(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
}

fn refuse(exchange: &mut Exchange, refusal: Refusal) -> Response<Reply> {
    exchange.answered_here(refusal.status().as_u16());
    let mut response = refusal.answer();
    // What is left of the body would be taken for a request.
    if exchange
        .source
        .as_ref()
        .is_some_and(|source| !source.has_ended())
    {
        close(response.headers_mut());
    }
    response
}

fn refusal(failure: &Failure) -> Refusal {
    match failure {
        Failure::Client(BodyError::TooLarge) => Refusal::TooLarge,
        Failure::Client(BodyError::Slow) => Refusal::Slow,
        Failure::Client(_) => Refusal::Malformed("The request's body is not what it should be."),
        Failure::Timeout | Failure::Late => Refusal::GatewayTimeout,
        _ => Refusal::BadGateway,
    }
}

/// A backend's answer.
fn from_backend(
    exchange: Exchange,
    route: &Route,
    mut answer: AnswerHead,
    lease: Lease,
    upgrade: bool,
) -> Response<Reply> {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        return switch(exchange, route, answer, lease, upgrade);
    }
    connection::strip_response(&mut answer.map);
    let mut reply = Box::new(FromBackend {
        lines: answer.lines,
        lease: Some(lease),
        exchange,
        idle: ticks(route.timeouts.idle),
        timer: None,
    });
    if reply.is_end_stream() {
        reply.end();
    }
    let mut response = Response::new(Reply::Backend(reply));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.map;
    response
}

/// The connection becomes a tunnel once the client has the answer.
fn switch(
    mut exchange: Exchange,
    route: &Route,
    mut answer: AnswerHead,
    lease: Lease,
    upgrade: bool,
) -> Response<Reply> {
    let Lease::H1(h1, _) = lease else {
        return refuse(&mut exchange, Refusal::BadGateway);
    };
    // A backend that switches without being asked to.
    if !upgrade {
        return refuse(&mut exchange, Refusal::BadGateway);
    }
    let headers = answer.headers();
    let protocol = headers.get(UPGRADE).cloned();
    connection::strip_response(headers);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
    }
    let (backend, read, held) = h1.into_tunnel();
    exchange.service.stats().tunnels.add(1);
    let link = exchange.link.clone();
    let tunnel = Tunnel {
        backend,
        read,
        exchange,
        silence: route.timeouts.tunnel,
        held,
    };
    *link.tunnel.borrow_mut() = Some(tunnel);
    let mut response = Response::new(Reply::empty());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.map;
    response
}
