//! A client's HTTP/2 connection, as h2 reads and writes it.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Frames, Stream, Traffic};

/// GOAWAY with ENHANCE_YOUR_CALM (RFC 9113, sections 6.8 and 7); any stream may have been looked at.
const CALM: [u8; 17] = [
    0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11,
];

/// The connection. h2 does not give it back: whoever serves it keeps a hand on it, too.
#[derive(Clone)]
pub(crate) struct Http2Io(Rc<RefCell<Inner>>);

struct Inner {
    stream: Stream,
    /// Read already.
    prefix: Bytes,
    traffic: Rc<Traffic>,
    frames: Frames,
}

impl Http2Io {
    /// A connection of which these bytes were read.
    pub(crate) fn new(stream: Stream, prefix: Bytes, traffic: &Rc<Traffic>) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            stream,
            prefix,
            frames: traffic.frames(),
            traffic: traffic.clone(),
        })))
    }

    /// Whether the client sends frames without end that ask for nothing: no more is read then.
    pub(crate) fn is_flood(&self) -> bool {
        self.0.borrow().frames.is_flood()
    }

    /// Tells the client to calm down, where there is room for that between frames.
    pub(crate) fn calm(&self, cx: &mut Context<'_>) {
        let inner = &mut *self.0.borrow_mut();
        if inner.frames.is_between() {
            // It is as well that a part of it goes: the connection ends here.
            let _ = inner.stream.poll_write(cx, &CALM);
        }
    }

    /// The connection, which h2 has let go.
    pub(crate) fn into_stream(self) -> Option<Stream> {
        Some(Rc::into_inner(self.0)?.into_inner().stream)
    }
}

impl Inner {
    /// So many bytes of these pieces were written, or not.
    fn wrote<'a>(
        &mut self,
        result: Poll<io::Result<usize>>,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &result {
            let mut left = *count;
            for piece in pieces {
                let written = left.min(piece.len());
                self.frames.send(&piece[..written]);
                left -= written;
            }
        }
        self.traffic.wrote(result)
    }
}

impl AsyncRead for Http2Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        let (traffic, frames) = (&inner.traffic, &mut inner.frames);
        let before = buffer.filled().len();
        if !inner.prefix.is_empty() {
            let count = inner.prefix.len().min(buffer.remaining());
            buffer.put_slice(&inner.prefix[..count]);
            inner.prefix.advance(count);
        } else if frames.is_flood() {
            // Whoever serves it looks, and ends it.
            return Poll::Pending;
        } else {
            ready!(inner.stream.poll_read(cx, buffer))?;
        }
        traffic.look(&buffer.filled()[before..], frames);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        let result = inner.stream.poll_write(cx, bytes);
        inner.wrote(result, [bytes])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        let result = inner.stream.poll_write_vectored(cx, pieces);
        inner.wrote(result, pieces.iter().map(|piece| &**piece))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        let flushed = inner.stream.poll_flush(cx);
        inner.traffic.flushed(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().stream.poll_shutdown(cx)
    }
}
