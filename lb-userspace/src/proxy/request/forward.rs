//! From a request to a backend's answer: which pool, which backend, and again if that fails.

use std::rc::Rc;

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Incoming},
    header::{CONNECTION, HOST, HeaderValue, UPGRADE},
};

use super::{
    RequestBody,
    answer::{self, Refusal, close},
    attempt::{Failure, Times, attempt},
    body::{BodyError, Source},
    exchange::Exchange,
    headers,
    reply::{FromBackend, Reply},
    retry::{Retrying, allows, is_idempotent},
};
use crate::{
    config::http::{Http, HttpVersion},
    dataplane::identity_at,
    proxy::{
        balance::{Tried, pick},
        local::LocalPool,
        timers::ticks,
        tunnel::Tunnel,
        upstream::{Lease, Upstream},
    },
};

/// What a backend is asked, without the body.
#[derive(Clone)]
struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

/// Sends a request on, and returns the answer.
pub(super) async fn forward(mut exchange: Exchange, request: Request<Incoming>) -> Response<Reply> {
    let service = exchange.service.clone();
    let http = &*service.plan.http;
    let (mut parts, incoming) = request.into_parts();
    let upgrade = upgrade(http, parts.version, &parts.headers);
    headers::strip(&mut parts.headers);
    let authority = match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => parts.headers.get(HOST).cloned(),
    };
    if let Some(authority) = authority {
        parts.headers.insert(HOST, authority);
    }
    if let Some(protocol) = &upgrade {
        let headers = &mut parts.headers;
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    let limit = http.limits.body_size.map_or(u64::MAX, |size| size.0);
    if incoming.size_hint().lower() > limit {
        return refuse(&mut exchange, Refusal::TooLarge);
    }
    if !incoming.is_end_stream() {
        let keep = http.retries.body_buffer.0 as usize;
        let timers = &exchange.link.worker.timers;
        exchange.source = Some(Source::new(incoming, limit, keep, timers));
    }
    let head = Head {
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
    };
    let pool = service.pools[0].clone();
    match tries(&mut exchange, &pool, http, head).await {
        Ok((response, lease, upstream)) => {
            finish(
                exchange,
                http,
                response,
                lease,
                &upstream,
                upgrade.is_some(),
            )
            .await
        }
        Err(Failure::Breaker) => {
            let response = answer::configured(&http.unavailable);
            exchange.answered_here(response.status().as_u16());
            response
        }
        Err(failure) => refuse(&mut exchange, refusal(&failure)),
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

/// The protocol that a client wants to speak instead, if it may.
fn upgrade(http: &Http, version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers
        .get(UPGRADE)
        .filter(|_| version == Version::HTTP_11)?;
    let connection = headers.get_all(CONNECTION).iter();
    let mut tokens = connection.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let nominated = tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    let name = wanted.to_str().ok()?;
    let allowed = http
        .upgrades
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name));
    (nominated && allowed).then(|| wanted.clone())
}

/// Tries until there is an answer, or no more may be tried.
async fn tries(
    exchange: &mut Exchange,
    pool: &Rc<LocalPool>,
    http: &Http,
    head: Head,
) -> Result<(Response<Incoming>, Lease, Rc<Upstream>), Failure> {
    let timers = exchange.link.worker.timers.clone();
    let idempotent = is_idempotent(&head.method);
    let total = http.timeouts.total;
    let times = Times {
        connect: http.timeouts.connect,
        response: http.timeouts.response,
        body: http.timeouts.body,
        idle: http.timeouts.idle,
        over: total.map_or(u32::MAX, |total| timers.now().saturating_add(ticks(total))),
    };
    let hash = identity_at(exchange.link.peer.ip(), 0);
    let mut head = Some(head);
    let mut tried = Tried::default();
    let mut left = http.retries.attempts;
    let mut retrying: Option<Retrying> = None;
    let mut closed_before = false;
    loop {
        let (place, upstream) = pick(pool, http.balance, hash, &tried).ok_or(Failure::Breaker)?;
        tried.add(place);
        let this = match left {
            0 => head.take(),
            _ => head.clone(),
        };
        let body = match &exchange.source {
            None => RequestBody::Empty,
            Some(source) => source.again().ok_or(Failure::Reset)?,
        };
        let Some(this) = this else {
            return Err(Failure::Unsent);
        };
        let request = for_backend(this, body, upstream.http().version);
        exchange.goes_to(pool, &upstream);
        let source = exchange.source.as_ref();
        let failure = match attempt(&upstream, &timers, request, source, &times).await {
            Ok((response, lease)) => {
                let status = response.status().as_u16();
                upstream.judge(pool, status);
                let failure = Failure::Status(status);
                let again = left > 0 && allows(&http.retries, &failure, idempotent, false);
                if !again || !may_again(exchange, pool, http, &mut retrying) {
                    exchange.answered(status);
                    return Ok((response, lease, upstream));
                }
                failure
            }
            Err(failure) => {
                upstream.failed(pool, &failure);
                failure
            }
        };
        if left == 0
            || !allows(&http.retries, &failure, idempotent, closed_before)
            || !(matches!(failure, Failure::Status(_))
                || may_again(exchange, pool, http, &mut retrying))
        {
            return Err(failure);
        }
        closed_before |= matches!(failure, Failure::Closed);
        left -= 1;
        exchange.service.stats().retries.add(1);
    }
}

/// Whether there is a body to send again, and a retry left in the budget.
fn may_again(
    exchange: &Exchange,
    pool: &Rc<LocalPool>,
    http: &Http,
    retrying: &mut Option<Retrying>,
) -> bool {
    if exchange
        .source
        .as_ref()
        .is_some_and(|source| source.again().is_none())
    {
        return false;
    }
    if retrying.is_none() {
        *retrying = Retrying::begin(pool, &http.retries);
        if retrying.is_none() {
            exchange.service.stats().retries_refused.add(1);
        }
    }
    retrying.is_some()
}

/// The request as the backend's version of HTTP has it.
fn for_backend(head: Head, body: RequestBody, version: HttpVersion) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.headers_mut() = head.headers;
    let path = head.uri.path_and_query().cloned();
    let mut uri = hyper::http::uri::Parts::default();
    uri.path_and_query = path;
    if version == HttpVersion::Http2 {
        *request.version_mut() = Version::HTTP_2;
        let host = request.headers_mut().remove(HOST);
        uri.authority = host.and_then(|host| host.as_bytes().try_into().ok());
        uri.scheme = uri
            .authority
            .as_ref()
            .map(|_| hyper::http::uri::Scheme::HTTP);
    }
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    request
}

/// The answer, on its way to the client.
async fn finish(
    exchange: Exchange,
    http: &Http,
    response: Response<Incoming>,
    lease: Lease,
    upstream: &Rc<Upstream>,
    upgrade: bool,
) -> Response<Reply> {
    let (mut parts, incoming) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return switch(exchange, http, parts, lease, upgrade).await;
    }
    headers::strip(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let mut reply = Box::new(FromBackend {
        incoming,
        lease: Some(lease),
        exchange,
        idle: ticks(http.timeouts.idle),
        timer: None,
    });
    let _ = upstream;
    if reply.incoming.is_end_stream() {
        std::future::poll_fn(|cx| {
            reply.end(cx);
            std::task::Poll::Ready(())
        })
        .await;
    }
    Response::from_parts(parts, Reply::Backend(reply))
}

/// The connection becomes a tunnel once the client has the answer.
async fn switch(
    mut exchange: Exchange,
    http: &Http,
    mut parts: hyper::http::response::Parts,
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
    let protocol = parts.headers.get(UPGRADE).cloned();
    headers::strip(&mut parts.headers);
    parts
        .headers
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        parts.headers.insert(UPGRADE, protocol);
    }
    let (io, read, held) = h1.into_tunnel().await;
    exchange.service.stats().tunnels.add(1);
    let link = exchange.link.clone();
    let tunnel = Tunnel {
        backend: io.0,
        read,
        exchange,
        silence: http.timeouts.tunnel,
        held,
    };
    *link.tunnel.borrow_mut() = Some(tunnel);
    parts.extensions.clear();
    Response::from_parts(parts, Reply::empty())
}
