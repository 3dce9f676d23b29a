//! A client's HTTP/2 connection, as hyper reads and writes it.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};

use super::{ClientIo, Stream};

/// GOAWAY with ENHANCE_YOUR_CALM (RFC 9113, sections 6.8 and 7); any stream may have been looked at.
const CALM: [u8; 17] = [
    0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11,
];

/// The connection. hyper does not give it back: whoever serves it keeps a hand on it, too.
#[derive(Clone)]
pub(crate) struct Http2Io(Rc<RefCell<ClientIo>>);

impl Http2Io {
    /// Shares it.
    pub(crate) fn new(io: ClientIo) -> Self {
        Self(Rc::new(RefCell::new(io)))
    }

    /// Whether the client sends frames without end that ask for nothing: no more is read then.
    pub(crate) fn is_flood(&self) -> bool {
        self.0.borrow().is_flood()
    }

    /// Tells the client to calm down, where there is room for that between frames.
    pub(crate) fn calm(&self, cx: &mut Context<'_>) {
        let io = &mut *self.0.borrow_mut();
        if io.frames.as_ref().is_some_and(|frames| frames.is_between()) {
            // It is as well that a part of it goes: the connection ends here.
            let _ = io.stream.poll_write(cx, &CALM);
        }
    }

    /// The connection, which hyper has let go.
    pub(crate) fn into_stream(self) -> Option<Stream> {
        Some(Rc::into_inner(self.0)?.into_inner().stream)
    }

    fn with<T>(&self, act: impl FnOnce(Pin<&mut ClientIo>) -> T) -> T {
        act(Pin::new(&mut *self.0.borrow_mut()))
    }
}

impl Read for Http2Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|io| io.poll_read(cx, cursor))
    }
}

impl Write for Http2Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|io| io.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|io| io.poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|io| io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|io| io.poll_shutdown(cx))
    }
}
