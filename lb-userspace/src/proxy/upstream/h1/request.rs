//! A request on its way to a backend (RFC 9112, sections 3, 6 and 7).

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING},
};
use hyper::body::{Body as _, Frame};

use crate::proxy::{
    headers::list::items,
    io::Stream,
    request::{BodyError, RequestBody, RequestHead},
};

/// What a head takes, mostly.
const HEAD: usize = 1024;

/// Why a request does not reach its end.
pub(super) enum Broken {
    /// The client's body.
    Client(BodyError),
    /// The connection.
    Io(io::Error),
}

/// What is to be written of a request.
#[derive(Default)]
pub(super) struct Outgoing {
    /// The head, or the line before a chunk.
    head: BytesMut,
    /// A piece of the body.
    piece: Bytes,
    /// What ends a chunk.
    end: &'static [u8],
    /// What is still to come of the body.
    body: Option<(RequestBody, Framing)>,
    /// Whether something was written that TLS may hold back.
    flush: bool,
    /// Whether any byte was taken from here.
    pub(super) has_begun: bool,
}

enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks, and the trailers that may follow.
    Chunks(Vec<HeaderName>),
}

impl Outgoing {
    /// A request. Its framing is what its body is, whatever the headers say.
    pub(super) fn new(asked: &RequestHead, body: RequestBody) -> Self {
        let mut head = BytesMut::with_capacity(HEAD);
        head.put(asked.method.as_str().as_bytes());
        head.put(&b" "[..]);
        let path = asked.uri.path_and_query();
        head.put(path.map_or("/", |path| path.as_str()).as_bytes());
        head.put(&b" HTTP/1.1\r\n"[..]);
        for (name, value) in &asked.headers {
            if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
                field(&mut head, name, value);
            }
        }
        let body = match (body.is_end_stream(), body.size_hint().exact()) {
            (true, _) | (_, Some(0)) => {
                if has_length(asked) {
                    field(&mut head, &CONTENT_LENGTH, &HeaderValue::from_static("0"));
                }
                None
            }
            (_, Some(bytes)) => {
                field(&mut head, &CONTENT_LENGTH, &bytes.into());
                Some((body, Framing::Length(bytes)))
            }
            (_, None) => {
                let chunked = HeaderValue::from_static("chunked");
                field(&mut head, &TRANSFER_ENCODING, &chunked);
                Some((body, Framing::Chunks(announced(&asked.headers))))
            }
        };
        head.put(&b"\r\n"[..]);
        Self {
            head,
            body,
            ..Self::default()
        }
    }

    /// Whether all of it was written.
    pub(super) fn is_done(&self) -> bool {
        self.body.is_none() && !self.has_bytes() && !self.flush
    }

    /// Writes what can be. Ready: all of it was.
    pub(super) fn poll(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            // A piece goes out with the head or line that is before it.
            while self.piece.is_empty() && self.end.is_empty() && self.body.is_some() {
                match self.take(cx) {
                    Poll::Ready(taken) => taken.map_err(Broken::Client)?,
                    Poll::Pending => break,
                }
            }
            if !self.has_bytes() {
                if self.flush {
                    ready!(stream.poll_flush(cx)).map_err(Broken::Io)?;
                    self.flush = false;
                }
                return match self.body {
                    None => Poll::Ready(Ok(())),
                    Some(_) => Poll::Pending,
                };
            }
            let pieces = [&*self.head, &*self.piece, self.end].map(IoSlice::new);
            let written = ready!(stream.poll_write_vectored(cx, &pieces));
            match written.map_err(Broken::Io)? {
                0 => return Poll::Ready(Err(Broken::Io(io::ErrorKind::WriteZero.into()))),
                written => self.wrote(written),
            }
        }
    }

    fn has_bytes(&self) -> bool {
        !(self.head.is_empty() && self.piece.is_empty() && self.end.is_empty())
    }

    fn wrote(&mut self, written: usize) {
        self.has_begun = true;
        self.flush = true;
        let mut left = written;
        for part in [
            &mut self.head as &mut dyn bytes::Buf,
            &mut self.piece,
            &mut self.end,
        ] {
            let count = left.min(part.remaining());
            part.advance(count);
            left -= count;
        }
    }

    /// Takes a piece of the body, or its end, behind what is there.
    fn take(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let Some((body, framing)) = &mut self.body else {
            return Poll::Ready(Ok(()));
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx)).transpose()?;
        let ended = frame.is_none() || body.is_end_stream();
        match (framing, frame.map(Frame::into_data)) {
            (Framing::Length(left), Some(Ok(piece))) => {
                // More than was said, though who frames it sees to that.
                *left = (left.checked_sub(piece.len() as u64)).ok_or(BodyError::Client)?;
                self.piece = piece;
                if *left == 0 {
                    self.body = None;
                }
            }
            // Less than was said.
            (Framing::Length(_), _) => return Poll::Ready(Err(BodyError::Client)),
            (Framing::Chunks(_), Some(Ok(piece))) => {
                if !piece.is_empty() {
                    let size = format!("{:x}\r\n", piece.len());
                    self.head.put(size.as_bytes());
                    self.piece = piece;
                    self.end = b"\r\n";
                }
                if ended {
                    self.end = match self.piece.is_empty() {
                        true => b"0\r\n\r\n",
                        false => b"\r\n0\r\n\r\n",
                    };
                    self.body = None;
                }
            }
            (Framing::Chunks(announced), Some(Err(frame))) => {
                self.head.put(&b"0\r\n"[..]);
                let trailers = frame.into_trailers().unwrap_or_default();
                for (name, value) in &trailers {
                    if announced.contains(name) {
                        field(&mut self.head, name, value);
                    }
                }
                self.head.put(&b"\r\n"[..]);
                self.body = None;
            }
            (Framing::Chunks(_), None) => {
                self.head.put(&b"0\r\n\r\n"[..]);
                self.body = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn field(head: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    let parts = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
    head.reserve(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| head.put(*part));
}

/// Whether a request without a body says that it has none (RFC 9110, section 8.6).
fn has_length(asked: &RequestHead) -> bool {
    let meant = [Method::POST, Method::PUT, Method::PATCH].contains(&asked.method);
    meant || asked.headers.contains_key(CONTENT_LENGTH)
}

/// The trailers that a request announces: a backend may take others for something else
/// (RFC 9110, section 6.5.1).
fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    items(headers, &TRAILER)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect()
}
