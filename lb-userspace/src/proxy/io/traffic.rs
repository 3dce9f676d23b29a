//! A client's connection, as hyper reads and writes it.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use hyper::{
    body::{Buf as _, Bytes},
    rt::{Read, ReadBufCursor, Write},
};

use super::{Frames, Guard, Stream};
use crate::proxy::timers::Timers;

/// What happens on a client's connection.
pub(crate) struct Traffic {
    timers: Rc<Timers>,
    /// HTTP/1: the requests' heads.
    pub(crate) guard: Guard,
    read: Cell<u32>,
    written: Cell<u32>,
    blocked: Cell<bool>,
    head_began: Cell<u32>,
}

impl Traffic {
    /// None yet.
    pub(crate) fn new(timers: &Rc<Timers>) -> Self {
        Self {
            timers: timers.clone(),
            guard: Guard::default(),
            read: Cell::new(timers.now()),
            written: Cell::new(timers.now()),
            blocked: Cell::new(false),
            head_began: Cell::new(timers.now()),
        }
    }

    /// The tick of the last byte from the client.
    pub(crate) fn last_read(&self) -> u32 {
        self.read.get()
    }

    /// The tick of the last byte either way.
    pub(crate) fn last(&self) -> u32 {
        self.read.get().max(self.written.get())
    }

    /// The tick of the last byte to the client.
    pub(crate) fn last_write(&self) -> u32 {
        self.written.get()
    }

    /// HTTP/1: the tick of the first byte of the head that is not at its end.
    pub(crate) fn head_began(&self) -> u32 {
        self.head_began.get()
    }

    /// Bytes came from the client.
    pub(crate) fn touch(&self) {
        self.read.set(self.timers.now());
    }

    fn look(&self, bytes: &[u8], frames: Option<&mut Frames>) {
        self.touch();
        match frames {
            Some(frames) => frames.receive(bytes, self.timers.now()),
            None => {
                if !self.guard.is_inside() {
                    self.head_began.set(self.timers.now());
                }
                self.guard.feed(bytes);
            }
        }
    }

    /// HTTP/2: what a connection that begins now is weighed with.
    pub(crate) fn frames(&self) -> Frames {
        Frames::new(self.timers.now())
    }

    /// Whether bytes wait until the client takes them.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.blocked.set(result.is_pending());
        if result.is_ready() {
            self.written.set(self.timers.now());
        }
        result
    }
}

/// The connection.
pub(crate) struct ClientIo {
    pub(crate) stream: Stream,
    /// Read already.
    pub(crate) prefix: Bytes,
    pub(crate) traffic: Rc<Traffic>,
    /// HTTP/2: its frames. Without, the guard looks on: HTTP/1.
    pub(crate) frames: Option<Frames>,
}

impl ClientIo {
    /// See [`Frames::is_flood`].
    pub(crate) fn is_flood(&self) -> bool {
        self.frames.as_ref().is_some_and(Frames::is_flood)
    }

    /// So many bytes of these pieces were written, or not.
    fn wrote<'a>(
        &mut self,
        result: Poll<io::Result<usize>>,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(count)), Some(frames)) = (&result, &mut self.frames) {
            let mut left = *count;
            for piece in pieces {
                let written = left.min(piece.len());
                frames.send(&piece[..written]);
                left -= written;
            }
        }
        self.traffic.wrote(result)
    }
}

impl Read for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.prefix.is_empty() {
            let count = this.prefix.len().min(cursor.remaining());
            this.traffic
                .look(&this.prefix[..count], this.frames.as_mut());
            cursor.put_slice(&this.prefix[..count]);
            this.prefix.advance(count);
            return Poll::Ready(Ok(()));
        }
        if this.is_flood() {
            // Whoever serves it looks, and ends it.
            return Poll::Pending;
        }
        let (traffic, frames) = (&this.traffic, this.frames.as_mut());
        this.stream
            .poll_fill(cx, cursor, |bytes| traffic.look(bytes, frames))
    }
}

impl Write for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = self.stream.poll_write(cx, bytes);
        self.wrote(result, [bytes])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = self.stream.poll_write_vectored(cx, pieces);
        self.wrote(result, pieces.iter().map(|piece| &**piece))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream.poll_flush(cx);
        // TLS takes more than it can send, and keeps it.
        self.traffic.blocked.set(flushed.is_pending());
        flushed
    }

    /// HTTP/1: nothing, as who gets it back from hyper closes it, or makes a tunnel of it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.frames {
            None => Poll::Ready(Ok(())),
            Some(_) => self.stream.poll_shutdown(cx),
        }
    }
}
