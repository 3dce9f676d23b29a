//! The head of a backend's answer, and what it says of the body (RFC 9112, sections 4 to 6).

use std::mem::MaybeUninit;

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use httparse::{ParserConfig, Status};
use hyper::body::{Buf as _, Bytes};

use super::body::Body;
use crate::proxy::headers::{connection, list::items};

/// Most bytes of a head, and of trailers.
pub(super) const MAX_HEAD: usize = 256 * 1024;

/// Most headers.
pub(super) const MAX_HEADERS: usize = 100;

/// Why what a backend sends is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Nonsense {
    /// It is not HTTP.
    #[error("no HTTP/1 answer: {0}")]
    Syntax(#[from] httparse::Error),
    /// A name, value or status that is none.
    #[error("a status or header that is none")]
    Header,
    /// It is too long.
    #[error("a head or trailers of more than {MAX_HEAD} bytes")]
    TooLarge,
    /// It has lengths that are none, or not the same.
    #[error("a Content-Length that is none, or several")]
    Length,
    /// HTTP/1.0 has no codings.
    #[error("a Transfer-Encoding in HTTP/1.0")]
    Coding,
    /// The body is not in chunks.
    #[error("a chunk that is none")]
    Chunk,
}

/// A head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) body: Body,
    /// Whether the connection outlives the answer.
    pub(super) keeps: bool,
}

/// Takes the head of an answer from what was read, and what informs before it, which clients are
/// not told of. `bodiless`: it is the answer to HEAD. None: there is not all of it.
///
/// # Errors
///
/// It is none.
pub(super) fn take(read: &mut Bytes, bodiless: bool) -> Result<Option<Head>, Nonsense> {
    loop {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = ParserConfig::default();
        let status = config.parse_response_with_uninit_headers(&mut parsed, read, &mut headers)?;
        let Status::Complete(length) = status else {
            return match read.len() > MAX_HEAD {
                true => Err(Nonsense::TooLarge),
                false => Ok(None),
            };
        };
        if length > MAX_HEAD {
            return Err(Nonsense::TooLarge);
        }
        let code = parsed.code.unwrap_or_default();
        if matches!(code, 100 | 102..=199) {
            read.advance(length);
            continue;
        }
        let old = parsed.version == Some(0);
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(code).map_err(|_| Nonsense::Header)?;
        if old {
            *response.version_mut() = Version::HTTP_10;
        }
        *response.headers_mut() = fields(read, parsed.headers)?;
        let (body, keeps) = body(&mut response, bodiless)?;
        read.advance(length);
        return Ok(Some(Head {
            response,
            body,
            keeps,
        }));
    }
}

/// Headers or trailers that were parsed where they lie.
///
/// # Errors
///
/// One is none.
pub(super) fn fields(read: &Bytes, parsed: &[httparse::Header<'_>]) -> Result<HeaderMap, Nonsense> {
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Nonsense::Header)?;
        let value = HeaderValue::from_maybe_shared(read.slice_ref(field.value));
        fields.append(name, value.map_err(|_| Nonsense::Header)?);
    }
    Ok(fields)
}

/// How the body is framed, and whether the connection outlives it (RFC 9112, section 6.3).
fn body(response: &mut Response<()>, bodiless: bool) -> Result<(Body, bool), Nonsense> {
    let old = response.version() == Version::HTTP_10;
    let status = response.status();
    let keeps = !connection::is_last(response.version(), response.headers());
    let headers = response.headers_mut();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok((Body::Ended, false));
    }
    if bodiless || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        return Ok((Body::Ended, keeps));
    }
    if let Some(codings) = headers.get_all(TRANSFER_ENCODING).iter().next_back() {
        if old {
            return Err(Nonsense::Coding);
        }
        // What is no text names no coding that is known.
        let codings = codings.to_str().unwrap_or_default();
        let last = codings.rsplit(',').next().unwrap_or_default();
        let chunked = last.trim_ascii().eq_ignore_ascii_case("chunked");
        // A length beside it is not to be believed, nor is where the next answer begins, and
        // clients are not to see it (RFC 9112, section 6.3, rule 3).
        let sane = headers.remove(CONTENT_LENGTH).is_none();
        return Ok(match chunked {
            true => (Body::chunked(), keeps && sane),
            false => (Body::UntilClose, false),
        });
    }
    match length(headers)? {
        Some(length) => Ok((Body::length(length), keeps)),
        None => Ok((Body::UntilClose, false)),
    }
}

/// The length that the headers say, once or several times, which is one time then.
fn length(headers: &mut HeaderMap) -> Result<Option<u64>, Nonsense> {
    let mut said = None;
    let mut times = 0;
    for digits in items(headers, &CONTENT_LENGTH) {
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Nonsense::Length);
        }
        let digits = std::str::from_utf8(digits).map_err(|_| Nonsense::Length)?;
        let length: u64 = digits.parse().map_err(|_| Nonsense::Length)?;
        if said.is_some_and(|said| said != length) {
            return Err(Nonsense::Length);
        }
        said = Some(length);
        times += 1;
    }
    if let Some(length) = said
        && times > 1
    {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    Ok(said)
}
