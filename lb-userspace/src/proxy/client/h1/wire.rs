//! A client's HTTP/1 connection, as whoever serves it and the body that it sends share it.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::Frame;

use crate::proxy::{
    h1::{Body, Desk, Inbox, Sink},
    io::{Stream, Traffic},
    request::BodyError,
};

/// What a client that waits for it is told before its body is read (RFC 9110, section 10.1.1).
const GO_ON: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The connection.
pub(super) struct Wire {
    inner: RefCell<Inner>,
    traffic: Rc<Traffic>,
    desk: Desk,
}

/// Borrowed for no longer than a read or a write takes.
struct Inner {
    /// None: it is served no longer.
    stream: Option<Stream>,
    inbox: Inbox,
    /// The client waits for a word before it sends the body, and has had none.
    waits: bool,
    /// What is still to be written before anything else.
    interim: &'static [u8],
    upload: Upload,
}

/// What is known of the body that the client sends.
#[derive(Debug, PartialEq, Eq)]
enum Upload {
    /// It is at its end.
    Ended,
    /// Somebody reads it.
    Read,
    /// Nobody will read what is left of it.
    Left(Body),
}

impl Wire {
    /// A connection of which these bytes were read.
    pub(super) fn new(traffic: &Rc<Traffic>, desk: &Desk, stream: Stream, read: Bytes) -> Rc<Self> {
        Rc::new(Self {
            inner: RefCell::new(Inner {
                stream: Some(stream),
                inbox: Inbox::new(read),
                waits: false,
                interim: b"",
                upload: Upload::Ended,
            }),
            traffic: traffic.clone(),
            desk: desk.clone(),
        })
    }

    /// Lets go of the connection, and of what was read ahead.
    pub(super) fn end(&self) -> (Option<Stream>, Bytes) {
        let inner = &mut *self.inner.borrow_mut();
        (inner.stream.take(), inner.inbox.take())
    }

    /// Has what was read ahead looked at.
    pub(super) fn with_read<R>(&self, look: impl FnOnce(&mut Bytes) -> R) -> R {
        look(&mut self.inner.borrow_mut().inbox.bytes)
    }

    /// Reads more behind what is there: how many bytes, none at the connection's end.
    pub(super) fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.inner
            .borrow_mut()
            .poll_fill(0, &self.desk, &self.traffic, cx)
    }

    /// Reads ahead while nobody else does: for whether the client is still there. Ready: it is not.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let inner = &mut *self.inner.borrow_mut();
        if inner.upload != Upload::Ended || !inner.inbox.bytes.is_empty() {
            return Poll::Pending;
        }
        match inner.poll_fill(0, &self.desk, &self.traffic, cx) {
            Poll::Ready(Ok(1..)) | Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
        }
    }

    /// An answer begins: it is the word that the client may wait for.
    pub(super) fn answers(&self) {
        self.inner.borrow_mut().waits = false;
    }

    /// What is known of the body that the client sends.
    fn set_upload(&self, upload: Upload) {
        self.inner.borrow_mut().upload = upload;
    }

    /// Reads what has come of a body that nobody wants, up to so many bytes. Whether that was all.
    pub(super) fn drain(&self, most: usize, cx: &mut Context<'_>) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        let Upload::Left(body) = &mut inner.upload else {
            return inner.upload == Upload::Ended;
        };
        let mut body = std::mem::replace(body, Body::Ended);
        let mut read = inner.inbox.bytes.len();
        while read <= most {
            match body.take(&mut inner.inbox.bytes) {
                Err(_) => return false,
                Ok(_) if body.has_ended() => {
                    inner.upload = Upload::Ended;
                    return true;
                }
                Ok(Some(_)) => {}
                Ok(None) => match inner.poll_fill(0, &self.desk, &self.traffic, cx) {
                    Poll::Ready(Ok(more @ 1..)) => read += more,
                    _ => return false,
                },
            }
        }
        false
    }

    /// The next piece of a body.
    fn poll_body(
        &self,
        body: &mut Body,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, BodyError>> {
        let inner = &mut *self.inner.borrow_mut();
        if std::mem::take(&mut inner.waits) && inner.inbox.bytes.is_empty() {
            inner.interim = GO_ON;
        }
        let broken = |_| BodyError::Client;
        if !inner.interim.is_empty() {
            ready!(inner.poll_interim(&self.traffic, cx)).map_err(broken)?;
            if let Some(stream) = &mut inner.stream {
                ready!(self.traffic.flushed(stream.poll_flush(cx))).map_err(broken)?;
            }
        }
        loop {
            let taken = body.take(&mut inner.inbox.bytes);
            if let Some(frame) = taken.map_err(|_| BodyError::Client)? {
                return Poll::Ready(Ok(Some(frame)));
            }
            if body.has_ended() {
                return Poll::Ready(Ok(None));
            }
            let expected = body.expected();
            let more = inner.poll_fill(expected, &self.desk, &self.traffic, cx);
            if ready!(more).map_err(broken)? == 0 {
                return Poll::Ready(Err(BodyError::Client));
            }
        }
    }
}

impl Inner {
    fn poll_fill(
        &mut self,
        expected: u64,
        desk: &Desk,
        traffic: &Traffic,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(0));
        };
        let read = ready!(self.inbox.poll_fill(stream, desk, expected, cx));
        traffic.touch();
        Poll::Ready(read)
    }

    fn poll_interim(&mut self, traffic: &Traffic, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            match ready!(traffic.wrote(stream.poll_write(cx, self.interim)))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.interim = &self.interim[written..],
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Sink for &Wire {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
        last: bool,
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *self.inner.borrow_mut();
        ready!(inner.poll_interim(&self.traffic, cx))?;
        match &mut inner.stream {
            Some(stream) => self
                .traffic
                .wrote(Sink::poll_write(stream, cx, pieces, last)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner.borrow_mut().stream {
            Some(stream) => self.traffic.flushed(stream.poll_flush(cx)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

/// The body of a client's request.
pub(crate) struct FromClient {
    wire: Rc<Wire>,
    body: Body,
}

impl FromClient {
    /// What comes next on a connection; `waits`: once the client has been told to go on.
    pub(super) fn new(wire: &Rc<Wire>, body: Body, waits: bool) -> Self {
        wire.set_upload(Upload::Read);
        wire.inner.borrow_mut().waits = waits;
        Self {
            wire: wire.clone(),
            body,
        }
    }

    /// The next piece.
    ///
    /// # Errors
    ///
    /// It has no end, or is not in chunks.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.body.has_ended() {
            return Poll::Ready(None);
        }
        let frame = ready!(self.wire.poll_body(&mut self.body, cx));
        if self.body.has_ended() {
            self.wire.set_upload(Upload::Ended);
        }
        Poll::Ready(frame.transpose())
    }

    /// What is still to come of it.
    pub(crate) fn body(&self) -> &Body {
        &self.body
    }
}

impl Drop for FromClient {
    fn drop(&mut self) {
        if !self.body.has_ended() {
            let left = std::mem::replace(&mut self.body, Body::Ended);
            self.wire.set_upload(Upload::Left(left));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{
        io::AsyncReadExt as _,
        net::{TcpListener, TcpStream},
        time::timeout,
    };

    use super::*;
    use crate::proxy::timers::Timers;

    /// What a client is told that waits, when its body is asked for `late`: behind the beginning of
    /// the answer.
    async fn told(late: bool) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let traffic = Rc::new(Traffic::new(&Timers::new()));
        let stream = Stream::Plain(server.unwrap().0);
        let wire = Wire::new(&traffic, &Desk::default(), stream, Bytes::new());
        let mut body = FromClient::new(&wire, Body::length(5), true);
        if late {
            wire.answers();
        }
        let waited = timeout(Duration::from_millis(50), poll_fn(|cx| body.poll_frame(cx)));
        assert!(waited.await.is_err(), "it was not sent");
        drop(wire.end());
        let mut told = Vec::new();
        client.unwrap().read_to_end(&mut told).await.unwrap();
        told
    }

    #[tokio::test]
    async fn who_waits_is_told_to_go_on_before_the_answer_or_not_at_all() {
        assert_eq!(told(false).await, GO_ON);
        assert_eq!(told(true).await, b"");
    }
}
