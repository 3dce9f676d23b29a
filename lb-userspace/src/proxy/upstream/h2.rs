//! A backend's HTTP/2 connection, which many requests share.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use hyper::{
    Request, Uri, Version,
    body::{Body as _, Bytes, Frame, Incoming, SizeHint},
    client::conn::{
        TrySendError,
        http2::{Builder, SendRequest},
    },
    header::HOST,
    http::uri,
};
use tokio::task::{AbortHandle, spawn_local};

use super::{Unanswered, Upstream};
use crate::proxy::{
    backend::Held,
    executor::Local,
    io::UpstreamIo,
    request::{AnswerHead, RequestBody, RequestHead},
    timers::Timers,
};

/// Requests at a time on a connection, if the backend allows as many.
pub(crate) const MAX_STREAMS: u32 = 100;

/// What may come before it is asked for, of a stream and of a connection.
const WINDOWS: (u32, u32) = (256 * 1024, 1024 * 1024);

/// The connection.
pub(crate) struct H2 {
    send: RefCell<SendRequest<RequestBody>>,
    streams: Cell<u32>,
    most_streams: Rc<Cell<u32>>,
    idle_since: Cell<u32>,
    timers: Rc<Timers>,
    driver: AbortHandle,
    _held: Held,
}

/// A request's place on it.
pub(crate) struct Stream {
    h2: Rc<H2>,
    upstream: Rc<Upstream>,
    /// Whether the connection had served before.
    pub(crate) reused: bool,
    /// The answer's body.
    incoming: Option<Incoming>,
}

impl H2 {
    /// A fresh connection.
    ///
    /// # Errors
    ///
    /// The backend does not speak HTTP/2.
    pub(crate) async fn new(io: UpstreamIo, held: Held, timers: &Rc<Timers>) -> io::Result<Rc<H2>> {
        let (send, connection) = Builder::new(Local)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .handshake(io)
            .await
            .map_err(io::Error::other)?;
        let most_streams = Rc::new(Cell::new(MAX_STREAMS));
        let driver = spawn_local({
            let most_streams = most_streams.clone();
            let mut connection = connection;
            poll_fn(move |cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                let most = u32::try_from(connection.current_max_send_streams());
                most_streams.set(most.unwrap_or(u32::MAX));
                polled.map(drop)
            })
        });
        Ok(Rc::new(H2 {
            send: RefCell::new(send),
            streams: Cell::new(0),
            idle_since: Cell::new(timers.now()),
            timers: timers.clone(),
            most_streams,
            driver: driver.abort_handle(),
            _held: held,
        }))
    }

    /// Whether it takes requests.
    pub(crate) fn is_open(&self) -> bool {
        !self.send.borrow().is_closed()
    }

    /// Requests on it.
    pub(crate) fn streams(&self) -> u32 {
        self.streams.get()
    }

    /// The tick since which it has none.
    pub(crate) fn idle_since(&self) -> u32 {
        self.idle_since.get()
    }

    /// Requests that the backend allows at a time.
    pub(crate) fn most_streams(&self) -> u32 {
        self.most_streams.get()
    }

    /// A place on it.
    pub(crate) fn stream(self: &Rc<Self>, reused: bool, upstream: &Rc<Upstream>) -> Stream {
        self.streams.set(self.streams.get() + 1);
        Stream {
            h2: self.clone(),
            upstream: upstream.clone(),
            reused,
            incoming: None,
        }
    }
}

impl Drop for H2 {
    fn drop(&mut self) {
        // Nobody is on it any more.
        self.driver.abort();
    }
}

impl Stream {
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
        let secure = self.upstream.pool.borrow().tls.is_some();
        let request = request(asked, body, secure);
        let answer = self.h2.send.borrow_mut().try_send_request(request);
        let mut answer = pin!(answer);
        let answer = poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(answer.map_err(unanswered)),
            Poll::Pending => over(cx).map(|()| Err(Unanswered::Timeout)),
        })
        .await?;
        let (parts, incoming) = answer.into_parts();
        self.incoming = Some(incoming);
        Ok(AnswerHead {
            status: parts.status,
            version: parts.version,
            map: parts.headers,
            lines: None,
        })
    }

    /// The next piece of the answer's body.
    ///
    /// # Errors
    ///
    /// It has no end.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unanswered>>> {
        match &mut self.incoming {
            None => Poll::Ready(None),
            Some(incoming) => {
                let polled = Pin::new(incoming).poll_frame(cx);
                polled.map(|frame| frame.map(|frame| frame.map_err(Unanswered::Two)))
            }
        }
    }

    /// Whether nothing more comes of the answer.
    pub(crate) fn is_end_stream(&self) -> bool {
        (self.incoming.as_ref()).is_none_or(|incoming| incoming.is_end_stream())
    }

    /// How much more comes of the answer.
    pub(crate) fn size_hint(&self) -> SizeHint {
        let incoming = self.incoming.as_ref();
        incoming.map_or(SizeHint::with_exact(0), |incoming| incoming.size_hint())
    }
}

/// A request as HTTP/2 has it.
fn request(asked: &RequestHead, body: RequestBody, secure: bool) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = asked.method.clone();
    *request.headers_mut() = asked.all_headers();
    let host = request.headers_mut().remove(HOST);
    let mut target = uri::Parts::default();
    target.path_and_query = asked.uri.path_and_query().cloned();
    target.authority = host.and_then(|host| host.as_bytes().try_into().ok());
    target.scheme = target.authority.as_ref().map(|_| match secure {
        true => uri::Scheme::HTTPS,
        false => uri::Scheme::HTTP,
    });
    *request.uri_mut() = Uri::from_parts(target).unwrap_or_default();
    request
}

/// hyper's error for an answer that never came.
fn unanswered(mut error: TrySendError<Request<RequestBody>>) -> Unanswered {
    match error.take_message() {
        Some(_) => Unanswered::Unsent,
        None => Unanswered::Two(error.into_error()),
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.h2.streams.set(self.h2.streams.get() - 1);
        self.h2.idle_since.set(self.h2.timers.now());
        self.upstream.changed.notify_one();
    }
}
