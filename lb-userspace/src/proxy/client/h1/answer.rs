//! The head of an answer to a client, and how its body is framed (RFC 9112, sections 4 to 6).

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, Method, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, DATE, TRAILER, TRANSFER_ENCODING},
};
use hyper::body::Body;

use super::head::Head;
use crate::proxy::{
    date::Date,
    h1::{Framing, Lines, Outgoing, announced, is, put, put_length},
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
    /// What a request says of it.
    pub(super) fn by(head: &Head) -> Self {
        Self {
            bodiless: head.method == Method::HEAD,
            old: head.version == Version::HTTP_10,
            keeps: head.keeps,
            trailers: head.trailers,
        }
    }

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
    lines: Option<&Lines>,
    asked: Asked,
    date: &Date,
) -> (Outgoing<B>, bool) {
    let (parts, body) = response.into_parts();
    let (status, headers) = (parts.status, &parts.headers);
    let lines = || lines.into_iter().flat_map(Lines::iter);
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
    let dated = fields(&mut head, lines(), chunks) | fields(&mut head, pairs(headers), chunks);
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
            let said = |(name, value)| is(name, &CONTENT_LENGTH).then_some(value);
            let said = lines().chain(pairs(headers)).find_map(said);
            told_length(&mut head, said, status, length);
            None
        }
        Some(length) => {
            put_length(&mut head, length);
            (length > 0).then_some(Framing::Length(length))
        }
        None if chunks => {
            head.put(&b"transfer-encoding: chunked\r\n"[..]);
            let all = lines().chain(pairs(headers)).filter(|_| asked.trailers);
            let lists = all.filter(|(name, _)| is(name, &TRAILER));
            Some(Framing::Chunks(announced(lists.map(|(_, value)| value))))
        }
        None => Some(Framing::UntilClose),
    };
    if !dated {
        date.put(&mut head);
    }
    head.put(&b"\r\n"[..]);
    let body = framing.map(|framing| (body, framing));
    let mut outgoing = Outgoing::new(head, body);
    outgoing.closes = !keeps && !switches;
    (outgoing, keeps)
}

fn line(head: &mut BytesMut, status: StatusCode) {
    head.put(&b"HTTP/1.1 "[..]);
    head.put(status.as_str().as_bytes());
    head.put(&b" "[..]);
    head.put(status.canonical_reason().unwrap_or_default().as_bytes());
    head.put(&b"\r\n"[..]);
}

/// The names and values in a map.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// Writes headers, without those of the framing; `chunks`: there may be some. Whether a date is
/// among them.
fn fields<'a>(
    head: &mut BytesMut,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    chunks: bool,
) -> bool {
    let mut dated = false;
    for (name, value) in fields {
        // Few others are as long as these.
        match name.len() {
            4 => dated |= is(name, &DATE),
            7 if !chunks && is(name, &TRAILER) => continue,
            14 if is(name, &CONTENT_LENGTH) => continue,
            17 if is(name, &TRANSFER_ENCODING) => continue,
            _ => {}
        }
        put(head, name, value);
    }
    dated
}

/// Writes the length that the body would have (RFC 9110, section 8.6), where there is none: as was
/// said, or that of Weir's own.
fn told_length(head: &mut BytesMut, said: Option<&[u8]>, status: StatusCode, own: Option<u64>) {
    let has_none = matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::SWITCHING_PROTOCOLS
    );
    match (said, own) {
        _ if has_none => {}
        (Some(length), _) => put(head, CONTENT_LENGTH, length),
        (None, Some(own @ 1..)) if status != StatusCode::NOT_MODIFIED => put_length(head, own),
        _ => {}
    }
}
