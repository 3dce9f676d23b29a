//! A request: read, routed, sent to a backend, answered.

mod answer;
mod attempt;
mod body;
mod exchange;
mod forward;
mod head;
mod hedge;
mod mirror;
mod prepare;
mod reply;
mod retry;

use std::{convert::Infallible, rc::Rc};

use hyper::{
    Method, Request, Response, Version,
    body::{Body as _, Incoming},
    header::{CONNECTION, TRANSFER_ENCODING},
};

use self::{
    answer::Refusal,
    forward::forward,
    prepare::{Outcome, prepare},
};
pub(crate) use self::{
    attempt::Failure,
    body::{BodyError, RequestBody},
    exchange::Exchange,
    head::RequestHead,
    reply::Reply,
};
use super::{client::Link, headers::connection};

/// Answers a request.
pub(crate) async fn handle(
    link: Rc<Link>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Infallible> {
    let mut exchange = Exchange::begin(&link);
    let service = exchange.service.clone();
    let old = request.version() < Version::HTTP_2;
    let head = request.method() == Method::HEAD;
    let acceptable = acceptable(&link, &request);
    let (mut parts, body) = request.into_parts();
    exchange.asks(&parts);
    let outcome = acceptable.and_then(|()| prepare(&link, &service.plan, &mut parts));
    let mut response = match outcome {
        Ok(Outcome::Ready(ready)) => forward(exchange, ready, parts, body).await,
        Ok(Outcome::Answer(response)) => answered_here(exchange, *response),
        Err(refusal) => {
            if let Refusal::Malformed(_) = refusal {
                service.stats().malformed.add(1);
            }
            answered_here(exchange, refusal.answer())
        }
    };
    if !old {
        response.headers_mut().remove(CONNECTION);
        if head {
            answer::without_body(&mut response);
        }
    } else if is_last(&link) {
        answer::close(response.headers_mut());
    }
    Ok(response)
}

fn answered_here(mut exchange: Exchange, response: Response<Reply>) -> Response<Reply> {
    exchange.answered_here(response.status().as_u16());
    response
}

/// Whether a request is one that can be served at all.
fn acceptable(link: &Link, request: &Request<Incoming>) -> Result<(), Refusal> {
    if request.version() < Version::HTTP_2 {
        let bodiless = request.body().is_end_stream();
        link.body_open.set(!bodiless);
        let last = connection::is_last(request.version(), request.headers());
        link.has_all.set(bodiless && last);
        link.number.set(link.number.get() + 1);
        let coding = request.headers().get(TRANSFER_ENCODING);
        if link
            .traffic
            .guard
            .refuses(link.number.get(), coding.is_some())
        {
            return Err(Refusal::Malformed("The request's length is ambiguous."));
        }
        // hyper takes any list that ends with it.
        if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
            return Err(Refusal::Coding);
        }
    }
    Ok(())
}

/// Whether the connection has served as many requests as it may.
fn is_last(link: &Link) -> bool {
    let service = link.listener.service();
    let most = service.plan.http.limits.requests_per_connection;
    most.is_some_and(|most| link.requests.get() >= most)
}
