//! From a request to a backend's answer: which pool, which backend, and again if that fails.

use std::rc::Rc;

use hyper::{
    HeaderMap, Response, StatusCode,
    body::Body as _,
    header::{CACHE_CONTROL, CONNECTION, EXPECT, HeaderValue, SET_COOKIE, UPGRADE},
    http::request::Parts,
};

use super::{
    AnswerHead, RequestBody, RequestHead,
    answer::{self, Refusal, close},
    attempt::{Failure, Times, attempt},
    body::{BodyError, Source},
    exchange::Exchange,
    hedge::race,
    mirror::mirror,
    prepare::Ready,
    reply::{FromBackend, Reply},
    retry::{Retrying, allows, is_idempotent},
};
use crate::proxy::{
    balance::{Tried, pick, stay},
    client::ClientBody,
    headers::{connection, list::items},
    local::LocalPool,
    route::Route,
    sticky::Token,
    timers::ticks,
    tunnel::Tunnel,
    upstream::Lease,
};

/// Sends a request on, and returns the answer.
pub(super) async fn forward(
    mut exchange: Exchange,
    ready: Ready<'_>,
    parts: Parts,
    incoming: ClientBody,
) -> Response<Reply> {
    let service = exchange.service.clone();
    let route = ready.route;
    let cookie = service.plan.cookies[route.number].as_ref();
    let sent = cookie.and_then(|cookie| cookie.read(&parts.headers));
    exchange.prepared(&ready);
    let mut head = RequestHead {
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
    };
    if let Some(protocol) = &ready.upgrade {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, protocol.clone());
    }
    // Who asks for it is told to go on when the body is first wanted.
    head.headers.remove(EXPECT);
    let limit = route.body_size.unwrap_or(u64::MAX);
    if incoming.size_hint().lower() > limit {
        return refuse(&mut exchange, Refusal::TooLarge);
    }
    if !incoming.is_end_stream() {
        let keep = usize::try_from(route.retries.body_buffer.0).unwrap_or(usize::MAX);
        let timers = &exchange.link.worker.timers;
        exchange.source = Some(Source::new(incoming, limit, keep, timers));
    }
    let pool = service.pools[ready.pool].clone();
    let answered = tries(&mut exchange, &pool, &ready, &head).await;
    mirror(
        &exchange.link,
        &service,
        route,
        &head,
        exchange.source.as_ref(),
    );
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
            finish(exchange, route, answer, lease, ready.upgrade.is_some()).await
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
    if let (Some(ids), Some(id)) = (&service.plan.request_ids, ready.id) {
        response.headers_mut().insert(ids.header(), id);
    }
    response
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

/// Tries until there is an answer, or no more may be tried.
async fn tries(
    exchange: &mut Exchange,
    pool: &Rc<LocalPool>,
    ready: &Ready<'_>,
    head: &RequestHead,
) -> Result<(AnswerHead, Lease), Failure> {
    let timers = exchange.link.worker.timers.clone();
    let (route, hash) = (ready.route, ready.hash);
    let idempotent = is_idempotent(&head.method);
    let times = Times::of(&route.timeouts, &timers);
    let mut tried = Tried::default();
    let mut left = route.retries.attempts;
    let mut retrying: Option<Retrying> = None;
    let mut closed_before = false;
    let mut stays = ready.stays;
    loop {
        let first = stays.take().and_then(|place| stay(pool, place));
        let (first_place, mut upstream) = first
            .or_else(|| pick(pool, route.balance, hash, &tried))
            .ok_or(Failure::Breaker)?;
        tried.add(first_place);
        let body = match &exchange.source {
            None => RequestBody::Empty,
            Some(source) => source.again().ok_or(Failure::Reset)?,
        };
        exchange.goes_to(pool, &upstream);
        let source = exchange.source.as_ref();
        let link = &exchange.link;
        let caller = link.caller(&pool.plan);
        let hedge = route.retries.hedge_after;
        let hedge = hedge.filter(|_| idempotent && source.is_none());
        let first = attempt(&upstream, &timers, caller, (head, body), source, &times);
        let answered = match hedge {
            Some(delay) => {
                let mut other = None;
                let second = || {
                    let token = Retrying::begin(pool, &route.retries)?;
                    let (place, upstream) = pick(pool, route.balance, hash, &tried)?;
                    (place != first_place).then_some(())?;
                    other = Some(upstream.clone());
                    let (timers, times) = (&timers, &times);
                    Some(async move {
                        let _token = token;
                        let caller = link.caller(&pool.plan);
                        let request = (head, RequestBody::Empty);
                        attempt(&upstream, timers, caller, request, None, times).await
                    })
                };
                // In a box, as what is rare is to be no part of every request's future.
                let (answered, by_second) = Box::pin(race(&timers, delay, first, second)).await;
                if let Some(other) = other {
                    exchange.service.stats().retries.add(1);
                    if by_second {
                        exchange.goes_to(pool, &other);
                        upstream = other;
                    }
                }
                answered
            }
            None => first.await,
        };
        let failure = match answered {
            Ok((answer, lease)) => {
                let status = answer.status.as_u16();
                upstream.judge(pool, status);
                let failure = Failure::Status(status);
                let again = left > 0 && allows(&route.retries, &failure, idempotent, false);
                if !again || !may_again(exchange, pool, route, &mut retrying) {
                    exchange.answered(status);
                    return Ok((answer, lease));
                }
                failure
            }
            Err(failure) => {
                upstream.failed(pool, &failure);
                failure
            }
        };
        if left == 0
            || !allows(&route.retries, &failure, idempotent, closed_before)
            || !(matches!(failure, Failure::Status(_))
                || may_again(exchange, pool, route, &mut retrying))
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
    route: &Route,
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
        *retrying = Retrying::begin(pool, &route.retries);
        if retrying.is_none() {
            exchange.service.stats().retries_refused.add(1);
        }
    }
    retrying.is_some()
}

/// The answer, on its way to the client.
async fn finish(
    exchange: Exchange,
    route: &Route,
    mut answer: AnswerHead,
    lease: Lease,
    upgrade: bool,
) -> Response<Reply> {
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        return Box::pin(switch(exchange, route, answer, lease, upgrade)).await;
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
async fn switch(
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
