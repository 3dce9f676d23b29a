//! The head of an answer to a client, and how its body is framed (RFC 9112, sections 4 to 6).

use std::fmt::Write as _;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, DATE, TRAILER, TRANSFER_ENCODING},
};
use hyper::body::Body;

use crate::proxy::{
    date::Date,
    h1::{Framing, Outgoing, announced, put},
    headers::connection,
    request::BodyError,
};

/// What a head takes, mostly.
const HEAD: usize = 1024;

/// What of a request matters to how its answer is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// HEAD: the answer has no body.
    pub(super) bodiless: bool,
    /// HTTP/1.0.
    pub(super) old: bool,
    /// Whether the connection may outlive the answer.
    pub(super) keeps: bool,
    /// Whether the client takes trailers.
    pub(super) trailers: bool,
}

impl Asked {
    /// What could not be read, and may be anything: nothing more is.
    pub(super) const NONSENSE: Asked = Asked {
        bodiless: false,
        old: false,
        keeps: false,
        trailers: false,
    };
}

/// An answer as it is written, and whether the connection outlives it. Its framing is what its body
/// is, whatever the headers say. Its version is Weir's own, whatever the client's is (RFC 9110,
/// section 6.2).
pub(super) fn answer<B: Body<Data = Bytes, Error = BodyError> + Unpin>(
    response: Response<B>,
    asked: Asked,
    date: &Date,
) -> (Outgoing<B>, bool) {
    let (parts, body) = response.into_parts();
    let (status, headers) = (parts.status, &parts.headers);
    let mut head = BytesMut::with_capacity(HEAD);
    line(&mut head, status);
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    let bodiless = asked.bodiless
        || switches
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let length = body.size_hint().exact();
    // Chunks came with HTTP/1.1.
    let chunks = !bodiless && !asked.old;
    let dated = fields(&mut head, headers, chunks);
    let says_close = connection::is_last(Version::HTTP_11, headers);
    let ends = !bodiless && length.is_none() && asked.old;
    let keeps = asked.keeps && !says_close && !switches && !ends;
    if !keeps && !says_close && !switches {
        head.put(&b"connection: close\r\n"[..]);
    } else if keeps && asked.old {
        head.put(&b"connection: keep-alive\r\n"[..]);
    }
    let framing = match length {
        _ if bodiless => {
            told_length(&mut head, headers, status, length);
            None
        }
        Some(length) => {
            put_length(&mut head, length);
            (length > 0).then_some(Framing::Length(length))
        }
        None if chunks => {
            head.put(&b"transfer-encoding: chunked\r\n"[..]);
            let trailers = asked.trailers.then(|| announced(headers));
            Some(Framing::Chunks(trailers.unwrap_or_default()))
        }
        None => Some(Framing::UntilClose),
    };
    if !dated {
        date.put(&mut head);
    }
    head.put(&b"\r\n"[..]);
    let body = framing.map(|framing| (body, framing));
    (Outgoing::new(head, body), keeps)
}

fn line(head: &mut BytesMut, status: StatusCode) {
    head.put(&b"HTTP/1.1 "[..]);
    head.put(status.as_str().as_bytes());
    head.put(&b" "[..]);
    head.put(status.canonical_reason().unwrap_or_default().as_bytes());
    head.put(&b"\r\n"[..]);
}

/// Writes the headers, without those of the framing; `chunks`: there may be some. Whether a date is
/// among them.
fn fields(head: &mut BytesMut, headers: &HeaderMap, chunks: bool) -> bool {
    let mut dated = false;
    for (name, value) in headers {
        match *name {
            CONTENT_LENGTH | TRANSFER_ENCODING => continue,
            TRAILER if !chunks => continue,
            DATE => dated = true,
            _ => {}
        }
        put(head, name, value);
    }
    dated
}

/// The length that the body would have (RFC 9110, section 8.6), where there is none.
fn told_length(head: &mut BytesMut, headers: &HeaderMap, status: StatusCode, own: Option<u64>) {
    let has_none = matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::SWITCHING_PROTOCOLS
    );
    match (headers.get(CONTENT_LENGTH), own) {
        _ if has_none => {}
        (Some(length), _) => put(head, &CONTENT_LENGTH, length),
        (None, Some(own @ 1..)) if status != StatusCode::NOT_MODIFIED => put_length(head, own),
        _ => {}
    }
}

fn put_length(head: &mut BytesMut, length: u64) {
    // A buffer that grows takes all of it.
    let _ = write!(head, "content-length: {length}\r\n");
}
