//! A message on its way out (RFC 9112, sections 6 and 7).

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use http::HeaderName;
use hyper::body::{Body, Frame};

use super::fields::put;
use crate::proxy::{io::Stream, request::BodyError};

/// Bytes of a piece that is copied to be sent with what comes before it.
const SMALL: usize = 1024;

/// Why a message does not reach its end.
pub(crate) enum Broken {
    /// Its body broke off.
    Body(BodyError),
    /// Its body has more or less bytes than was said, though who frames it sees to that.
    Length,
    /// The connection.
    Io(io::Error),
}

/// Where a message goes.
pub(crate) trait Sink {
    /// Writes what it can of several pieces; `last`: the connection is closed at once behind them.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
        last: bool,
    ) -> Poll<io::Result<usize>>;

    /// Writes what was kept back.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Sink for Stream {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
        last: bool,
    ) -> Poll<io::Result<usize>> {
        match last {
            true => self.poll_write_last(cx, pieces),
            false => self.poll_write_vectored(cx, pieces),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_flush(self, cx)
    }
}

/// What is to be written of a message.
pub(crate) struct Outgoing<B> {
    /// The head, or the line before a chunk.
    head: BytesMut,
    /// A piece of the body.
    piece: Bytes,
    /// What ends a chunk.
    end: &'static [u8],
    /// What is still to come of the body.
    body: Option<(B, Framing)>,
    /// Whether something was written that TLS may hold back.
    flush: bool,
    /// Whether any byte was taken from here.
    pub(crate) has_begun: bool,
    /// Whether the connection is closed at once behind it.
    pub(crate) closes: bool,
}

/// How a body is told from what follows it.
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks, and the trailers that may follow.
    Chunks(Vec<HeaderName>),
    /// Nothing follows it.
    UntilClose,
}

impl<B> Default for Outgoing<B> {
    fn default() -> Self {
        Self {
            head: BytesMut::new(),
            piece: Bytes::new(),
            end: b"",
            body: None,
            flush: false,
            has_begun: false,
            closes: false,
        }
    }
}

impl<B> Outgoing<B> {
    /// Whether all of it was written.
    pub(crate) fn is_done(&self) -> bool {
        self.body.is_none() && !self.has_bytes() && !self.flush
    }

    fn has_bytes(&self) -> bool {
        !(self.head.is_empty() && self.piece.is_empty() && self.end.is_empty())
    }

    /// Makes one piece of a head and a small body, which costs less than to write several.
    fn join(&mut self) {
        if !self.head.is_empty() && self.piece.len() <= SMALL {
            self.head.extend_from_slice(&self.piece);
            self.head.extend_from_slice(self.end);
            self.piece = Bytes::new();
            self.end = b"";
        }
    }

    fn wrote(&mut self, written: usize) {
        self.has_begun = true;
        self.flush = true;
        let mut left = written;
        for part in [
            &mut self.head as &mut dyn Buf,
            &mut self.piece,
            &mut self.end,
        ] {
            let count = left.min(part.remaining());
            part.advance(count);
            left -= count;
        }
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Outgoing<B> {
    /// A message: its head, with the empty line, and its body.
    pub(crate) fn new(head: BytesMut, body: Option<(B, Framing)>) -> Self {
        Self {
            head,
            body,
            ..Self::default()
        }
    }

    /// Writes what can be. Ready: all of it was.
    ///
    /// # Errors
    ///
    /// It has no end.
    pub(crate) fn poll(
        &mut self,
        sink: &mut impl Sink,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            // A piece goes out with the head or line that is before it.
            while self.piece.is_empty() && self.end.is_empty() && self.body.is_some() {
                match self.take(cx) {
                    Poll::Ready(taken) => taken?,
                    Poll::Pending => break,
                }
            }
            if !self.has_bytes() {
                if self.flush {
                    ready!(sink.poll_flush(cx)).map_err(Broken::Io)?;
                    self.flush = false;
                }
                return match self.body {
                    None => Poll::Ready(Ok(())),
                    Some(_) => Poll::Pending,
                };
            }
            self.join();
            let pieces = [&*self.head, &*self.piece, self.end].map(IoSlice::new);
            let last = self.closes && self.body.is_none();
            let written = ready!(sink.poll_write(cx, &pieces, last));
            match written.map_err(Broken::Io)? {
                0 => return Poll::Ready(Err(Broken::Io(io::ErrorKind::WriteZero.into()))),
                written => self.wrote(written),
            }
        }
    }

    /// Takes a piece of the body, or its end, behind what is there.
    fn take(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Some((body, framing)) = &mut self.body else {
            return Poll::Ready(Ok(()));
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx)).transpose();
        let frame = frame.map_err(Broken::Body)?;
        let ended = frame.is_none() || body.is_end_stream();
        match (framing, frame.map(Frame::into_data)) {
            (Framing::Length(left), Some(Ok(piece))) => {
                *left = (left.checked_sub(piece.len() as u64)).ok_or(Broken::Length)?;
                self.piece = piece;
                // Whoever gives it is let come to its end, which may be told apart.
                if *left == 0 && ended {
                    self.body = None;
                }
            }
            (Framing::Length(0), _) => self.body = None,
            (Framing::Length(_), _) => return Poll::Ready(Err(Broken::Length)),
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
                        put(&mut self.head, name, value);
                    }
                }
                self.head.put(&b"\r\n"[..]);
                self.body = None;
            }
            (Framing::Chunks(_), None) => {
                self.head.put(&b"0\r\n\r\n"[..]);
                self.body = None;
            }
            (Framing::UntilClose, Some(Ok(piece))) => {
                self.piece = piece;
                if ended {
                    self.body = None;
                }
            }
            (Framing::UntilClose, _) => self.body = None,
        }
        Poll::Ready(Ok(()))
    }
}
