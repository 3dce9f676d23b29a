//! The head of a client's request, and what it says of the body (RFC 9112, sections 2 to 6). Where
//! it could be read in two ways it is refused, also where RFC 9112 allows one of them: what a
//! backend is asked is then nobody's guess.

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes};
use http::{
    HeaderMap, HeaderValue, Method, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING},
};
use httparse::{Error, ParserConfig, Status};

use crate::{
    config::http::Limits,
    proxy::{
        h1::{Body, length, value},
        headers::{
            connection,
            list::{items, items_of},
        },
        request::Refusal,
    },
};

/// Headers that there is room for on the stack; more than that are rare.
const MOST: usize = 100;

/// Headers that may be added to a request: room for them is made at once.
const ADDED: usize = 2;

/// A head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    /// What comes behind it; or why nothing that does can be trusted.
    pub(super) body: Result<Body, Refusal>,
    /// Whether the client wants the connection to outlive the answer.
    pub(super) keeps: bool,
    /// Whether the client waits for a word before it sends the body.
    pub(super) expects: bool,
    /// Whether the client takes trailers.
    pub(super) trailers: bool,
}

/// How much of a head was looked at.
#[derive(Default)]
pub(super) struct Seen(usize);

impl Seen {
    /// Whether to look for a head: at what comes first, for what is none to be refused at once, and
    /// where there is an end. None is read again and again, byte by byte.
    fn may_have_end(&mut self, read: &[u8]) -> bool {
        if self.0 == 0 {
            self.0 = read.len();
            return true;
        }
        // The end may have begun in what was seen.
        let from = self.0.saturating_sub(2);
        self.0 = read.len();
        memchr::memchr_iter(b'\n', &read[from..]).any(|place| {
            let rest = &read[from + place + 1..];
            rest.starts_with(b"\n") || rest.starts_with(b"\r\n")
        })
    }
}

/// Takes the head of a request from what was read. None: there is not all of it.
///
/// # Errors
///
/// It is none, or too large.
pub(super) fn take(
    read: &mut Bytes,
    seen: &mut Seen,
    limits: &Limits,
) -> Result<Option<Head>, Refusal> {
    let most = usize::try_from(limits.header_size.0).unwrap_or(usize::MAX);
    // A line's end before a request is none of it (RFC 9112, section 2.2).
    while let [b'\r', b'\n', ..] | [b'\n', ..] = &**read {
        read.advance(1);
    }
    if !seen.may_have_end(read) {
        return match read.len() > most {
            true => Err(Refusal::HeadTooLarge),
            false => Ok(None),
        };
    }
    let mut few = [const { MaybeUninit::uninit() }; MOST];
    let mut many;
    let room = match limits.headers as usize {
        count @ 0..=MOST => &mut few[..count],
        count => {
            many = vec![MaybeUninit::uninit(); count];
            &mut many[..]
        }
    };
    let mut parsed = httparse::Request::new(&mut []);
    let config = ParserConfig::default();
    let status = config.parse_request_with_uninit_headers(&mut parsed, read, room);
    let length = match status {
        Ok(Status::Complete(length)) if length <= most => length,
        Ok(Status::Partial) if read.len() <= most => return Ok(None),
        Ok(_) | Err(Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        Err(_) => return Err(SYNTAX),
    };
    *seen = Seen::default();
    let target = parsed.path.unwrap_or_default().as_bytes();
    if target.len() > MAX_TARGET {
        return Err(Refusal::TargetTooLong);
    }
    let uri = Uri::from_maybe_shared(read.slice_ref(target)).map_err(|_| SYNTAX)?;
    let method = parsed.method.unwrap_or_default().as_bytes();
    let mut head = Head {
        method: Method::from_bytes(method).map_err(|_| SYNTAX)?,
        uri,
        version: match parsed.version {
            Some(0) => Version::HTTP_10,
            _ => Version::HTTP_11,
        },
        headers: HeaderMap::with_capacity(parsed.headers.len() + ADDED),
        body: Ok(Body::Ended),
        keeps: true,
        expects: false,
        trailers: false,
    };
    let (mut framed, mut connection) = (false, false);
    for field in &*parsed.headers {
        let (name, value) = value(read, field.name.as_bytes(), field.value).map_err(|_| SYNTAX)?;
        // What most requests lack is not looked up in the map.
        match name {
            CONTENT_LENGTH | TRANSFER_ENCODING => framed = true,
            CONNECTION => connection = true,
            EXPECT => head.expects = value.as_bytes().eq_ignore_ascii_case(b"100-continue"),
            TE => head.trailers |= has(&value, b"trailers"),
            _ => {}
        }
        head.headers.append(name, value);
    }
    read.advance(length);
    let old = head.version == Version::HTTP_10;
    head.expects &= !old;
    if connection || old {
        head.keeps = !connection::is_last(head.version, &head.headers);
    }
    if framed {
        head.body = body(old, &head.headers);
        head.keeps &= head.body.is_ok();
    }
    Ok(Some(head))
}

/// Most bytes of a target.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// What is no request at all.
const SYNTAX: Refusal = Refusal::Malformed("The request is not HTTP as it should be.");

/// What has two lengths, or none that is one.
const AMBIGUOUS: Refusal = Refusal::Malformed("The request's length is ambiguous.");

/// How the body is framed (RFC 9112, section 6.3), where a header says so.
fn body(old: bool, headers: &HeaderMap) -> Result<Body, Refusal> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let both = (
        lengths.next(),
        lengths.next(),
        codings.next(),
        codings.next(),
    );
    match both {
        (Some(said), None, None, None) => {
            length(said.as_bytes()).map(Body::length).ok_or(AMBIGUOUS)
        }
        (None, None, Some(_), None) if old => Err(AMBIGUOUS),
        (None, None, Some(coding), None) => match coding.as_bytes() {
            coding if coding.eq_ignore_ascii_case(b"chunked") => Ok(Body::chunked()),
            // Whether it is chunked behind that does not matter to a request that is refused.
            _ if items(headers, &TRANSFER_ENCODING)
                .last()
                .is_some_and(|last| last.eq_ignore_ascii_case(b"chunked")) =>
            {
                Err(Refusal::Coding)
            }
            _ => Err(AMBIGUOUS),
        },
        _ => Err(AMBIGUOUS),
    }
}

/// Whether a list has this item.
fn has(list: &HeaderValue, item: &[u8]) -> bool {
    items_of(list.as_bytes()).any(|other| other.eq_ignore_ascii_case(item))
}
