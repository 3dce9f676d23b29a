//! Getting a connection: one that is there, or a new one.

use std::{future::poll_fn, io, pin::pin, rc::Rc, task::Poll};

use tokio::net::TcpStream;

use super::{H1, H2, Lease, Upstream, h2::MAX_STREAMS};
use crate::{
    config::http::HttpVersion,
    proxy::{
        backend::Held,
        io::{Stream, UpstreamIo},
        timers::Timer,
    },
};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The kernel's, or what the peer made of the handshake.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("no connection in time")]
    Timeout,
    /// The circuit breaker's limits.
    #[error("as many connections and waiting requests as may be")]
    Breaker,
}

impl Upstream {
    /// A connection for a request.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub(crate) async fn lease(
        self: &Rc<Self>,
        timeout: std::time::Duration,
    ) -> Result<Lease, ConnectError> {
        if self.http.borrow().version == HttpVersion::Http2 {
            if let Some(stream) = self.open_stream() {
                return Ok(Lease::H2(stream));
            }
        } else {
            // Polled where it will be used, so that the news of its end come here.
            let idle = poll_fn(|cx| Poll::Ready(self.take_idle(cx))).await;
            if let Some(h1) = idle {
                return Ok(Lease::H1(h1, self.clone()));
            }
        }
        let breaker = self.http.borrow().circuit_breaker;
        if breaker
            .pending
            .is_some_and(|most| self.backend.pending() >= most)
        {
            return Err(ConnectError::Breaker);
        }
        let _pending = Held::pending(&self.backend);
        let timer = Timer::after(&self.timers, timeout);
        let mut made = pin!(self.wait_or_make());
        poll_fn(|cx| match made.as_mut().poll(cx) {
            Poll::Ready(made) => Poll::Ready(made),
            Poll::Pending => timer.poll(cx).map(|()| Err(ConnectError::Timeout)),
        })
        .await
    }

    async fn wait_or_make(self: &Rc<Self>) -> Result<Lease, ConnectError> {
        loop {
            let http = self.http();
            let two = http.version == HttpVersion::Http2;
            let full = (http.circuit_breaker.connections)
                .is_some_and(|most| self.backend.connections() >= most);
            if full || (two && self.connecting.get()) {
                self.wait().await;
                let ready = match two {
                    true => self.open_stream().map(Lease::H2),
                    false => poll_fn(|cx| Poll::Ready(self.take_idle(cx)))
                        .await
                        .map(|h1| Lease::H1(h1, self.clone())),
                };
                if let Some(lease) = ready {
                    return Ok(lease);
                }
                continue;
            }
            if !two {
                let held = self.hold_connection();
                let io = UpstreamIo(self.connect().await?);
                return Ok(Lease::H1(H1::new(io, held).await?, self.clone()));
            }
            let connecting = Connecting::begin(self);
            let held = self.hold_connection();
            let io = UpstreamIo(self.connect().await?);
            let h2 = H2::new(io, held, &self.timers).await?;
            self.shared.borrow_mut().push(h2.clone());
            drop(connecting);
            return Ok(Lease::H2(h2.stream(false, self)));
        }
    }

    /// Until a connection may be there. Another worker's is not told of, so not for long.
    async fn wait(&self) {
        let timer = Timer::new(&self.timers);
        timer.set(1);
        let mut changed = pin!(self.changed.notified());
        poll_fn(|cx| match changed.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => timer.poll(cx),
        })
        .await;
    }

    async fn connect(&self) -> io::Result<Stream> {
        let tcp = TcpStream::connect(self.backend.address).await?;
        tcp.set_nodelay(true)?;
        Ok(Stream::Plain(tcp))
    }

    /// A stream of the HTTP/2 connection that has the fewest, if it may have more.
    fn open_stream(self: &Rc<Self>) -> Option<super::h2::Stream> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|h2| h2.is_open());
        let least = shared.iter().min_by_key(|h2| h2.streams())?;
        (least.streams() < MAX_STREAMS.min(least.most_streams())).then(|| least.stream(true, self))
    }
}

/// While it lives an HTTP/2 connection is being made.
struct Connecting<'a>(&'a Upstream);

impl<'a> Connecting<'a> {
    fn begin(upstream: &'a Upstream) -> Self {
        upstream.connecting.set(true);
        Self(upstream)
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.changed.notify_waiters();
    }
}
