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

use std::rc::Rc;

use hyper::{Method, Response, Version, http::request::Parts};

pub(crate) use self::{
    answer::Refusal,
    attempt::Failure,
    body::{BodyError, RequestBody},
    exchange::Exchange,
    head::{AnswerHead, RequestHead},
    reply::Reply,
};
use self::{
    forward::forward,
    prepare::{Outcome, prepare},
};
use super::client::{ClientBody, Link};

/// Answers a request. `framed`: or why it has no length that can be trusted.
pub(crate) async fn handle(
    link: &Rc<Link>,
    mut parts: Parts,
    body: ClientBody,
    framed: Result<(), Refusal>,
) -> Response<Reply> {
    let mut exchange = Exchange::begin(link);
    let service = exchange.service.clone();
    let old = parts.version < Version::HTTP_2;
    let head = parts.method == Method::HEAD;
    exchange.asks(&parts);
    let outcome = framed.and_then(|()| prepare(link, &service.plan, &mut parts));
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
        if head {
            answer::without_body(&mut response);
        }
    } else if is_last(link) {
        answer::close(response.headers_mut());
    }
    response
}

fn answered_here(mut exchange: Exchange, response: Response<Reply>) -> Response<Reply> {
    exchange.answered_here(response.status().as_u16());
    response
}

/// Whether the connection has served as many requests as it may.
fn is_last(link: &Link) -> bool {
    let service = link.listener.service();
    let most = service.plan.http.limits.requests_per_connection;
    most.is_some_and(|most| link.requests.get() >= most)
}
