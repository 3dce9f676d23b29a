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
mod tries;

use std::{
    future::{Future, ready},
    pin::Pin,
    rc::Rc,
};

use hyper::{Method, Response, Version, http::request::Parts};

pub(crate) use self::{
    answer::Refusal,
    attempt::Failure,
    body::{BodyError, RequestBody},
    exchange::Exchange,
    head::{AnswerHead, RequestHead, Told},
    reply::Reply,
};
use self::{
    forward::Forwarding,
    prepare::{Outcome, prepare},
    tries::tries,
};
use super::client::{ClientBody, Link};

/// An answer to come.
pub(crate) type Handled = Pin<Box<dyn Future<Output = Response<Reply>>>>;

/// Answers a request. `framed`: or why it has no length that can be trusted. What can be done at once
/// is, and is no part of the future, in which everything has its room for as long as it lives.
pub(crate) fn handle(
    link: &Rc<Link>,
    parts: Parts,
    body: ClientBody,
    framed: Result<(), Refusal>,
) -> Handled {
    let (old, head) = (
        parts.version < Version::HTTP_2,
        parts.method == Method::HEAD,
    );
    let begun = begin(link, parts, body, framed);
    let last = is_last(link);
    let end = move |mut response: Response<Reply>| {
        if !old {
            if head {
                answer::without_body(&mut response);
            }
        } else if last {
            answer::close(response.headers_mut());
        }
        response
    };
    match begun {
        Ok(mut forwarding) => Box::pin(async move {
            let answered = tries(&mut forwarding).await;
            end(forwarding.end(answered))
        }),
        Err(response) => Box::pin(ready(end(*response))),
    }
}

/// Looks at a request.
///
/// # Errors
///
/// The answer, where it is Weir's.
fn begin(
    link: &Rc<Link>,
    mut parts: Parts,
    body: ClientBody,
    framed: Result<(), Refusal>,
) -> Result<Forwarding, Box<Response<Reply>>> {
    let mut exchange = Exchange::begin(link);
    let service = exchange.service.clone();
    exchange.asks(&parts);
    let outcome = framed.and_then(|()| prepare(link, &service.plan, &mut parts));
    let response = match outcome {
        Ok(Outcome::Ready(ready)) => return Forwarding::begin(exchange, ready, parts, body),
        Ok(Outcome::Answer(response)) => response,
        Err(refusal) => {
            if let Refusal::Malformed(_) = refusal {
                service.stats().malformed.add(1);
            }
            Box::new(refusal.answer())
        }
    };
    exchange.answered_here(response.status().as_u16());
    Err(response)
}

/// Whether the connection has served as many requests as it may.
fn is_last(link: &Link) -> bool {
    let service = link.listener.service();
    let most = service.plan.http.limits.requests_per_connection;
    most.is_some_and(|most| link.requests.get() >= most)
}
