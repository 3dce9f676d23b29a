//! A backend's HTTP/1 connection. No task of its own drives it: whoever waits for an answer does,
//! in its own turn.

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

use http::Method;
use hyper::body::{Bytes, Frame, SizeHint};
use tokio::io::ReadBuf;

use self::{head::Head, request::request};
use super::{Caller, Unanswered};
use crate::proxy::{
    backend::Held,
    h1::{Body, Broken, Desk, Inbox, Outgoing},
    io::Stream,
    request::{AnswerHead, BodyError, RequestBody, RequestHead},
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
    outgoing: Outgoing<RequestBody>,
    inbox: Inbox,
    /// What is still to come of an answer's body.
    body: Body,
    /// Whether it may serve another request.
    keeps: bool,
    desk: Desk,
}

impl H1 {
    /// A fresh connection.
    pub(crate) fn new(stream: Stream, held: Held, desk: &Desk) -> H1 {
        H1 {
            wire: Box::new(Wire {
                stream,
                outgoing: Outgoing::default(),
                inbox: Inbox::default(),
                body: Body::Ended,
                keeps: true,
                desk: desk.clone(),
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
        wire.keeps
            && wire.body.has_ended()
            && wire.outgoing.is_done()
            && wire.inbox.bytes.is_empty()
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
    ) -> Result<AnswerHead, Unanswered> {
        let wire = &mut *self.wire;
        wire.outgoing = request(asked, body);
        let bodiless = asked.method == Method::HEAD;
        poll_fn(|cx| {
            let broken = match wire.poll_outgoing(cx) {
                Poll::Ready(Err(Unanswered::Io(error))) => Some(error),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
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
        (self.wire.stream, self.wire.inbox.bytes, self._held)
    }
}

impl Wire {
    fn poll_head(
        &mut self,
        bodiless: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<AnswerHead, Unanswered>> {
        loop {
            if ready!(self.fill(cx))? == 0 {
                let closed = io::ErrorKind::UnexpectedEof;
                return Poll::Ready(Err(Unanswered::Io(closed.into())));
            }
            if let Some(head) = head::take(&mut self.inbox.bytes, bodiless)? {
                let Head {
                    answer,
                    body,
                    keeps,
                } = head;
                self.body = body;
                self.keeps = keeps;
                return Poll::Ready(Ok(answer));
            }
        }
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, Unanswered>> {
        if !self.outgoing.is_done() {
            match self.poll_outgoing(cx) {
                // The answer may be whole nevertheless.
                Poll::Ready(Err(Unanswered::Io(_))) => {
                    self.outgoing = Outgoing::default();
                    self.keeps = false;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        loop {
            if let Some(frame) = self.body.take(&mut self.inbox.bytes)? {
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

    /// Sends what can be sent of the request. Ready: all of it was.
    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unanswered>> {
        let sent = self.outgoing.poll(&mut self.stream, cx);
        sent.map_err(|broken| match broken {
            Broken::Body(error) => Unanswered::Client(error),
            Broken::Length => Unanswered::Client(BodyError::Client),
            Broken::Io(error) => Unanswered::Io(error),
        })
    }

    /// Reads more behind what is there: how many bytes, none at the connection's end.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Unanswered>> {
        let expected = self.body.expected();
        let filled = (self.inbox).poll_fill(&mut self.stream, &self.desk, expected, cx);
        filled.map_err(Unanswered::Io)
    }
}
