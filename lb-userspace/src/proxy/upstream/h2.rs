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
    Request, Response,
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use tokio::task::{AbortHandle, spawn_local};

use super::{
    Upstream,
    h1::{Unanswered, unanswered},
};
use crate::proxy::{
    backend::Held, executor::Local, io::UpstreamIo, request::RequestBody, timers::Timers,
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
    pub(crate) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        over: impl Fn(&mut Context<'_>) -> Poll<()>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let answer = self.h2.send.borrow_mut().try_send_request(request);
        let mut answer = pin!(answer);
        poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(answer.map_err(unanswered)),
            Poll::Pending => over(cx).map(|()| Err(Unanswered::Timeout)),
        })
        .await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.h2.streams.set(self.h2.streams.get() - 1);
        self.h2.idle_since.set(self.h2.timers.now());
        self.upstream.changed.notify_one();
    }
}
