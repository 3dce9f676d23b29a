//! A backend's HTTP/1 connection. No task of its own drives it: whoever waits for an answer does,
//! in its own turn, which saves two switches between tasks a request.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Weak,
    task::{Context, Poll, Waker},
};

use hyper::{
    Request, Response,
    body::{Body as _, Bytes, Frame, Incoming},
    client::conn::{
        TrySendError,
        http1::{Builder, Connection, SendRequest},
    },
};
use tokio::task::unconstrained;

use super::Caller;
use crate::proxy::{backend::Held, io::UpstreamIo, request::RequestBody};

/// The connection.
pub(crate) struct H1 {
    send: SendRequest<RequestBody>,
    connection: Box<Connection<UpstreamIo, RequestBody>>,
    /// Whether hyper has nothing more to do: it must not be asked again.
    ended: bool,
    /// Whether it has served before.
    pub(crate) reused: bool,
    /// The client whose PROXY header it began with: it is its alone.
    pub(super) caller: Option<Weak<Caller>>,
    /// The tick of its last answer's end.
    pub(crate) idle_since: u32,
    _held: Held,
}

/// Why there is no answer.
pub(crate) enum Unanswered {
    /// Nothing of the request was sent.
    Unsent,
    /// hyper says why.
    Failed(hyper::Error),
    /// The time is over.
    Timeout,
}

impl H1 {
    /// A fresh connection.
    ///
    /// # Errors
    ///
    /// hyper's; there is none that the outside could cause.
    pub(crate) async fn new(io: UpstreamIo, held: Held) -> io::Result<H1> {
        let (send, connection) = Builder::new()
            .max_header_size(MAX_HEAD)
            .handshake(io)
            .await
            .map_err(io::Error::other)?;
        Ok(H1 {
            send,
            connection: Box::new(connection),
            ended: false,
            reused: false,
            caller: None,
            idle_since: 0,
            _held: held,
        })
    }

    /// Whether a request may be sent on it.
    pub(crate) fn is_usable(&mut self, cx: &mut Context<'_>) -> bool {
        !self.drive(cx) && self.send.is_ready()
    }

    /// Has hyper read and write what it can; whether it has nothing more to do.
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        self.ended = self.ended || Pin::new(&mut *self.connection).poll(cx).is_ready();
        self.ended
    }

    /// Sends a request and waits for the answer's headers, or until `over`.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        over: impl Fn(&mut Context<'_>) -> Poll<()>,
    ) -> Result<Response<Incoming>, Unanswered> {
        // Its news come by polling the connection, here: they need wake nobody.
        let mut answer = pin!(unconstrained(self.send.try_send_request(request)));
        poll_fn(|cx| {
            self.drive(cx);
            let mut silent = Context::from_waker(Waker::noop());
            if let Poll::Ready(answer) = answer.as_mut().poll(&mut silent) {
                return Poll::Ready(answer.map_err(unanswered));
            }
            over(cx).map(|()| Err(Unanswered::Timeout))
        })
        .await
    }

    /// The next piece of an answer's body.
    pub(crate) fn poll_body(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut silent = Context::from_waker(Waker::noop());
        // First to say that more is wanted, then to get it.
        if let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(&mut silent) {
            return Poll::Ready(frame);
        }
        // What went wrong comes through the body.
        self.drive(cx);
        Pin::new(incoming).poll_frame(&mut silent)
    }

    /// The connection's bytes, after an answer that switches protocols; with what was read of it.
    pub(crate) async fn into_tunnel(mut self) -> (UpstreamIo, Bytes, Held) {
        poll_fn(|cx| match self.drive(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        let parts = self.connection.into_parts();
        (parts.io, parts.read_buf, self._held)
    }
}

/// Bytes of an answer's head.
const MAX_HEAD: usize = 256 * 1024;

/// hyper's error for an answer that never came.
pub(super) fn unanswered(error: TrySendError<Request<RequestBody>>) -> Unanswered {
    let mut error = error;
    match error.take_message() {
        Some(_) => Unanswered::Unsent,
        None => Unanswered::Failed(error.into_error()),
    }
}
