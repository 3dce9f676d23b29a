//! The head of a backend's answer, and what it says of the body (RFC 9112, sections 4 to 6).

use std::mem::MaybeUninit;

use http::{
    HeaderMap, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};
use httparse::{ParserConfig, Status};
use hyper::body::{Buf as _, Bytes};

use crate::proxy::{
    h1::{Body, Lines, MAX_HEAD, MAX_HEADERS, Nonsense, is, length},
    headers::{connection, list::items},
    request::AnswerHead,
};

/// A head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) answer: AnswerHead,
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
        let lines = Lines::new(read.slice(..length), parsed.headers);
        read.advance(length);
        let status = StatusCode::from_u16(code).map_err(|_| Nonsense::Header)?;
        return head(status, old, lines, bodiless).map(Some);
    }
}

/// What an answer with these fields is.
fn head(status: StatusCode, old: bool, mut lines: Lines, bodiless: bool) -> Result<Head, Nonsense> {
    if lines.iter().any(|(name, _)| name.len() > LONGEST) {
        return Err(Nonsense::Header);
    }
    let has_none = bodiless || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    let mut answer = AnswerHead {
        status,
        version: match old {
            true => Version::HTTP_10,
            false => Version::HTTP_11,
        },
        map: HeaderMap::new(),
        lines: None,
    };
    let plain = !old && status != StatusCode::SWITCHING_PROTOCOLS;
    if let Some((body, keeps)) = plain.then(|| plain_body(&lines, has_none)).flatten() {
        // Who has a body says how long it is anew.
        let goes = |name: &[u8]| {
            connection::is_of_this_hop(name) || (!has_none && is(name, &CONTENT_LENGTH))
        };
        lines.retain(|name, _| !goes(name));
        answer.lines = Some(lines);
        return Ok(Head {
            answer,
            body,
            keeps,
        });
    }
    lines.add_to(&mut answer.map);
    let (body, keeps) = body(&mut answer, has_none)?;
    Ok(Head {
        answer,
        body,
        keeps,
    })
}

/// Most bytes of a name.
const LONGEST: usize = u16::MAX as usize;

/// How the body is framed, and whether the connection outlives it, where an answer says it as most
/// do. None: it has to be looked at more closely.
fn plain_body(lines: &Lines, has_none: bool) -> Option<(Body, bool)> {
    let (mut said, mut chunked, mut keeps) = (None, false, true);
    for (name, value) in lines.iter() {
        // Few names are as long as these.
        match name.len() {
            10 if is(name, &CONNECTION) => {
                keeps = !value.eq_ignore_ascii_case(b"close");
                (!keeps || value.eq_ignore_ascii_case(b"keep-alive")).then_some(())?;
            }
            14 if is(name, &CONTENT_LENGTH) => {
                let once = said.replace(length(value)?).is_none();
                once.then_some(())?;
            }
            17 if is(name, &TRANSFER_ENCODING) => {
                let once = !std::mem::replace(&mut chunked, true);
                (once && value.eq_ignore_ascii_case(b"chunked")).then_some(())?;
            }
            _ => {}
        }
    }
    match (said, chunked) {
        (Some(_), true) => None,
        _ if has_none => Some((Body::Ended, keeps)),
        (None, true) => Some((Body::chunked(), keeps)),
        (Some(length), false) => Some((Body::length(length), keeps)),
        (None, false) => Some((Body::UntilClose, false)),
    }
}

/// How the body is framed, and whether the connection outlives it (RFC 9112, section 6.3).
fn body(answer: &mut AnswerHead, has_none: bool) -> Result<(Body, bool), Nonsense> {
    let old = answer.version == Version::HTTP_10;
    let headers = &mut answer.map;
    let keeps = !connection::is_last(answer.version, headers);
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok((Body::Ended, false));
    }
    if has_none {
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
    match said_length(headers)? {
        Some(length) => Ok((Body::length(length), keeps)),
        None => Ok((Body::UntilClose, false)),
    }
}

/// The length that the headers say, once or several times, which is one time then.
fn said_length(headers: &mut HeaderMap) -> Result<Option<u64>, Nonsense> {
    let mut said = None;
    let mut times = 0;
    for item in items(headers, &CONTENT_LENGTH) {
        let length = length(item).ok_or(Nonsense::Length)?;
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
