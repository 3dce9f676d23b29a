//! A backend's HTTP/1 connection. No task of its own drives it: whoever waits for an answer does,
//! in its own turn. Weir's own and not hyper's, whose channels between the two sides of a
//! connection, and copies of each head, took much of the CPU time of a request
//! (docs/benchmarks-l7.md).

mod body;
mod head;
mod request;
#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    io,
    rc::Weak,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use http::{Method, Response};
use hyper::body::{Bytes, Frame, SizeHint};
use tokio::io::ReadBuf;

pub(crate) use self::head::Nonsense;
use self::{
    body::Body,
    head::Head,
    request::{Broken, Outgoing},
};
use super::{Caller, Unanswered};
use crate::proxy::{
    backend::Held,
    io::Stream,
    local::Scratch,
    request::{RequestBody, RequestHead},
};

/// The connection.
pub(crate) struct H1 {
    /// In a box, as it is handed about.
    wire: Box<Wire>,
    /// Whether it has served before.
    pub(crate) reused: bool,
    /// The client whose PROXY header it began with: it is its alone.
    pub(super) caller: Option<Weak<Caller>>,
    /// The tick of its last answer's end.
    pub(crate) idle_since: u32,
    _held: Held,
}

struct Wire {
    stream: Stream,
    outgoing: Outgoing,
    /// Read, and not looked at.
    read: Bytes,
    /// What is still to come of an answer's body.
    body: Body,
    /// Whether it may serve another request.
    keeps: bool,
    /// How much was read at once, the last time.
    last_read: usize,
    scratch: Scratch,
}

/// A body of which more than this is to come at once is read to where it stays.
const LARGE: u64 = 4096;

/// Least and most that is read at once of a large body.
const PIECES: (usize, usize) = (8 * 1024, 64 * 1024);

impl H1 {
    /// A fresh connection.
    pub(crate) fn new(stream: Stream, held: Held, scratch: &Scratch) -> H1 {
        H1 {
            wire: Box::new(Wire {
                stream,
                outgoing: Outgoing::default(),
                read: Bytes::new(),
                body: Body::Ended,
                keeps: true,
                last_read: 0,
                scratch: scratch.clone(),
            }),
            reused: false,
            caller: None,
            idle_since: 0,
            _held: held,
        }
    }

    /// Whether its last request and answer are at their ends, and another one may follow.
    pub(crate) fn is_free(&self) -> bool {
        let wire = &*self.wire;
        wire.keeps && wire.body.has_ended() && wire.outgoing.is_done() && wire.read.is_empty()
    }

    /// Whether it is free, and the backend has neither closed it nor said something unasked.
    pub(crate) fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        let mut unasked = ReadBuf::new(&mut byte);
        self.is_free() && self.wire.stream.poll_read(cx, &mut unasked).is_pending()
    }

    /// Sends a request and waits for the answer's headers, or until `over`.
    ///
    /// # Errors
    ///
    /// See [`Unanswered`].
    pub(crate) async fn exchange(
        &mut self,
        asked: &RequestHead,
        body: RequestBody,
        over: impl Fn(&mut Context<'_>) -> Poll<()>,
    ) -> Result<Response<()>, Unanswered> {
        let wire = &mut *self.wire;
        wire.outgoing = Outgoing::new(asked, body);
        let bodiless = asked.method == Method::HEAD;
        poll_fn(|cx| {
            let broken = match wire.outgoing.poll(&mut wire.stream, cx) {
                Poll::Ready(Err(Broken::Client(error))) => {
                    return Poll::Ready(Err(Unanswered::Client(error)));
                }
                Poll::Ready(Err(Broken::Io(error))) => Some(error),
                Poll::Ready(Ok(())) | Poll::Pending => None,
            };
            // Who does not take all of a request may have said why.
            if let Poll::Ready(head) = wire.poll_head(bodiless, cx) {
                wire.keeps &= broken.is_none();
                return Poll::Ready(head);
            }
            match broken {
                Some(_) if !wire.outgoing.has_begun => Poll::Ready(Err(Unanswered::Unsent)),
                Some(error) => Poll::Ready(Err(Unanswered::Io(error))),
                None => over(cx).map(|()| Err(Unanswered::Timeout)),
            }
        })
        .await
    }

    /// The next piece of the answer's body. What is left of the request goes on meanwhile.
    ///
    /// # Errors
    ///
    /// The answer or the request has no end.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unanswered>>> {
        self.wire.poll_body(cx).map(Result::transpose)
    }

    /// Whether nothing more comes of the answer.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.wire.body.has_ended()
    }

    /// How much more comes of the answer.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.wire.body.size_hint()
    }

    /// The connection, after an answer that switches protocols; with what was read of it.
    pub(crate) fn into_tunnel(self) -> (Stream, Bytes, Held) {
        (self.wire.stream, self.wire.read, self._held)
    }
}

impl Wire {
    fn poll_head(
        &mut self,
        bodiless: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, Unanswered>> {
        loop {
            if ready!(self.fill(cx))? == 0 {
                let closed = io::ErrorKind::UnexpectedEof;
                return Poll::Ready(Err(Unanswered::Io(closed.into())));
            }
            if let Some(head) = head::take(&mut self.read, bodiless)? {
                let Head {
                    response,
                    body,
                    keeps,
                } = head;
                self.body = body;
                self.keeps = keeps;
                return Poll::Ready(Ok(response));
            }
        }
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, Unanswered>> {
        if !self.outgoing.is_done() {
            match self.outgoing.poll(&mut self.stream, cx) {
                Poll::Ready(Err(Broken::Client(error))) => {
                    return Poll::Ready(Err(Unanswered::Client(error)));
                }
                // The answer may be whole nevertheless.
                Poll::Ready(Err(Broken::Io(_))) => {
                    self.outgoing = Outgoing::default();
                    self.keeps = false;
                }
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        loop {
            if let Some(frame) = self.body.take(&mut self.read)? {
                return Poll::Ready(Ok(Some(frame)));
            }
            if self.body.has_ended() {
                return Poll::Ready(Ok(None));
            }
            if ready!(self.fill(cx))? == 0 && !self.body.close() {
                let closed = io::ErrorKind::UnexpectedEof;
                return Poll::Ready(Err(Unanswered::Io(closed.into())));
            }
        }
    }

    /// Reads more behind what is there: how many bytes, none at the connection's end.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Unanswered>> {
        let expected = self.body.expected();
        let count = if expected > LARGE && self.read.is_empty() {
            let size = (2 * self.last_read).clamp(PIECES.0, PIECES.1);
            let size = usize::try_from(expected).map_or(size, |expected| expected.min(size));
            let mut piece = BytesMut::with_capacity(size);
            let count = ready!(self.stream.poll_read_into(cx, &mut piece));
            self.read = piece.freeze();
            count
        } else {
            // Heads and small bodies take no more memory than they have bytes.
            let mut scratch = self.scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            let filled = ready!(self.stream.poll_read(cx, &mut buffer));
            let filled = filled.map(|()| buffer.filled());
            filled.map(|more| {
                self.read = match self.read.is_empty() {
                    true => Bytes::copy_from_slice(more),
                    false => behind(std::mem::take(&mut self.read), more),
                };
                more.len()
            })
        };
        let count = count.map_err(Unanswered::Io)?;
        self.last_read = count;
        Poll::Ready(Ok(count))
    }
}

/// Bytes, and more of them.
fn behind(read: Bytes, more: &[u8]) -> Bytes {
    let mut all = read
        .try_into_mut()
        .unwrap_or_else(|read| BytesMut::from(&*read));
    all.extend_from_slice(more);
    all.freeze()
}
