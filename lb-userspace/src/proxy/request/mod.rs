//! A request: read, routed, sent to a backend, answered.

mod answer;
mod attempt;
mod body;
mod exchange;
mod forward;
mod headers;
mod reply;
mod retry;

use std::{convert::Infallible, rc::Rc};

use hyper::{Method, Request, Response, Version, body::Incoming};

use self::answer::Refusal;
pub(crate) use self::{attempt::Failure, body::RequestBody, exchange::Exchange, reply::Reply};
use super::client::Link;

/// Answers a request.
pub(crate) async fn handle(
    link: Rc<Link>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Infallible> {
    let mut exchange = Exchange::begin(&link);
    let old = request.version() < Version::HTTP_2;
    let mut response = match acceptable(&link, &request) {
        Ok(()) => forward::forward(exchange, request).await,
        Err(refusal) => {
            if let Refusal::Malformed(_) = refusal {
                exchange.service.stats().malformed.add(1);
            }
            exchange.answered_here(refusal.status().as_u16());
            refusal.answer()
        }
    };
    if !old {
        response.headers_mut().remove(hyper::header::CONNECTION);
    } else if is_last(&link) {
        answer::close(response.headers_mut());
    }
    Ok(response)
}

/// Whether a request is one that can be served at all.
fn acceptable(link: &Link, request: &Request<Incoming>) -> Result<(), Refusal> {
    use hyper::{body::Body as _, header::TRANSFER_ENCODING};
    if request.version() < Version::HTTP_2 {
        link.body_open.set(!request.body().is_end_stream());
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
    if request.method() == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    Ok(())
}

/// Whether the connection has served as many requests as it may.
fn is_last(link: &Link) -> bool {
    let service = link.listener.service();
    let most = service.plan.http.limits.requests_per_connection;
    most.is_some_and(|most| link.requests.get() >= most)
}
