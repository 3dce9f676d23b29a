//! The head of a backend's answer, and what it says of the body (RFC 9112, sections 4 to 6).

use std::mem::MaybeUninit;

use http::{
    HeaderMap, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use httparse::{ParserConfig, Status};
use hyper::body::{Buf as _, Bytes};

use crate::proxy::{
    h1::{Body, MAX_HEAD, MAX_HEADERS, Nonsense, all},
    headers::{connection, list::items},
};

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
        *response.headers_mut() = all(read, parsed.headers)?;
        let (body, keeps) = body(&mut response, bodiless)?;
        read.advance(length);
        return Ok(Some(Head {
            response,
            body,
            keeps,
        }));
    }
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
