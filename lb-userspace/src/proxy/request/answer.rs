//! Answers that Weir gives itself.

use hyper::{
    HeaderMap, Response, StatusCode,
    body::Bytes,
    header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER},
};

use super::reply::Reply;
use crate::proxy::route::FixedAnswer;

/// Why a request is answered by Weir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not HTTP as it should be.
    Malformed(&'static str),
    /// Its line and headers are too large, or too many.
    HeadTooLarge,
    /// What it asks for is too long.
    TargetTooLong,
    /// Its body is coded in a way that is not understood.
    Coding,
    /// Its body did not come in time.
    Slow,
    /// Its body is too large.
    TooLarge,
    /// The client asks too often: seconds until it may again.
    TooMany(u64),
    /// CONNECT.
    Connect,
    /// The backend broke, or what it said is no HTTP.
    BadGateway,
    /// The backend did not answer in time.
    GatewayTimeout,
}

impl Refusal {
    /// The status that says it.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
            Refusal::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::TargetTooLong => StatusCode::URI_TOO_LONG,
            Refusal::Coding => StatusCode::NOT_IMPLEMENTED,
            Refusal::Slow => StatusCode::REQUEST_TIMEOUT,
            Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::BadGateway => StatusCode::BAD_GATEWAY,
            Refusal::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Refusal::Malformed(why) => why,
            Refusal::HeadTooLarge => "The request's headers are too many, or too large.",
            Refusal::TargetTooLong => "What the request asks for is too long.",
            Refusal::Coding => "The request's body is coded in a way that is not understood.",
            Refusal::Slow => "The request did not come in time.",
            Refusal::TooLarge => "The request's body is too large.",
            Refusal::TooMany(_) => "Too many requests.",
            Refusal::Connect => "This is no proxy to connect through.",
            Refusal::BadGateway => "The backend failed.",
            Refusal::GatewayTimeout => "The backend did not answer in time.",
        }
    }

    /// The answer. Where the rest of the request cannot be trusted to be one, or will not be
    /// read, the connection is closed behind it.
    pub(crate) fn answer(self) -> Response<Reply> {
        let text = format!("{}\n", self.text());
        let mut response = Response::new(Reply::full(Bytes::from(text)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PLAIN);
        match self {
            Refusal::Malformed(_)
            | Refusal::HeadTooLarge
            | Refusal::TargetTooLong
            | Refusal::Coding
            | Refusal::Slow
            | Refusal::TooLarge => {
                close(headers);
            }
            Refusal::Connect => {
                let methods = "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS";
                headers.insert(ALLOW, HeaderValue::from_static(methods));
                close(headers);
            }
            Refusal::TooMany(after) => {
                headers.insert(RETRY_AFTER, after.into());
            }
            Refusal::BadGateway | Refusal::GatewayTimeout => {}
        }
        response
    }
}

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Closes an HTTP/1 connection behind the answer.
pub(crate) fn close(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

/// An answer of the operator's.
pub(crate) fn fixed(answer: &FixedAnswer) -> Response<Reply> {
    let mut response = Response::new(Reply::full(answer.body.clone()));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    if !answer.body.is_empty() {
        headers.insert(CONTENT_TYPE, answer.content_type.clone());
    }
    if let Some(after) = &answer.retry_after {
        headers.insert(RETRY_AFTER, after.clone());
    }
    response
}

/// Takes the body of Weir's own from an HTTP/2 answer to HEAD, and leaves its length.
pub(crate) fn without_body(response: &mut Response<Reply>) {
    if let Reply::Own(Some(bytes)) = response.body() {
        let length = bytes.len().into();
        response.headers_mut().insert(CONTENT_LENGTH, length);
        *response.body_mut() = Reply::empty();
    }
}

/// Sends the client elsewhere.
pub(crate) fn redirect(status: StatusCode, location: HeaderValue) -> Response<Reply> {
    let mut response = Response::new(Reply::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(LOCATION, location);
    response
}
