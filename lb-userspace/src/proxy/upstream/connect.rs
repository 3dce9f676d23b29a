//! Getting a connection: one that is there, or a new one.

use std::{future::poll_fn, io, pin::pin, rc::Rc, task::Poll};

use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::TlsConnector;

use super::{Caller, H1, H2, Lease, Upstream, h2::MAX_STREAMS};
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
    /// A connection for a request; one of this client's, if the backend is told who that is.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub(crate) async fn lease(
        self: &Rc<Self>,
        caller: Option<&Rc<Caller>>,
        timeout: std::time::Duration,
    ) -> Result<Lease, ConnectError> {
        if let Some(lease) = self.take_ready(caller).await {
            return Ok(lease);
        }
        let breaker = self.pool.borrow().http.circuit_breaker;
        if breaker
            .pending
            .is_some_and(|most| self.backend.pending() >= most)
        {
            return Err(ConnectError::Breaker);
        }
        let _pending = Held::pending(&self.backend);
        let timer = Timer::after(&self.timers, timeout);
        // In a box: it is large, rare, and would be a part of every request's future.
        let mut made = Box::pin(self.wait_or_make(caller));
        poll_fn(|cx| match made.as_mut().poll(cx) {
            Poll::Ready(made) => Poll::Ready(made),
            Poll::Pending => timer.poll(cx).map(|()| Err(ConnectError::Timeout)),
        })
        .await
    }

    /// A connection that is there.
    async fn take_ready(self: &Rc<Self>, caller: Option<&Rc<Caller>>) -> Option<Lease> {
        if self.two.get() {
            return self.open_stream(caller).map(Lease::H2);
        }
        // Polled where it will be used, so that the news of its end come here.
        let idle = poll_fn(|cx| {
            Poll::Ready(match caller {
                None => self.take_idle(cx),
                Some(caller) => caller.take_idle(self, cx),
            })
        });
        let idle = idle.await;
        idle.map(|h1| Lease::H1(h1, self.clone()))
    }

    async fn wait_or_make(
        self: &Rc<Self>,
        caller: Option<&Rc<Caller>>,
    ) -> Result<Lease, ConnectError> {
        loop {
            let most = self.pool.borrow().http.circuit_breaker.connections;
            let full = most.is_some_and(|most| self.backend.connections() >= most);
            let wait = full || (self.two.get() && self.connecting.get());
            if !wait {
                return self.make(caller).await;
            }
            self.wait().await;
            if let Some(lease) = self.take_ready(caller).await {
                return Ok(lease);
            }
        }
    }

    async fn make(self: &Rc<Self>, caller: Option<&Rc<Caller>>) -> Result<Lease, ConnectError> {
        let connecting = self.two.get().then(|| Connecting::begin(self));
        let held = self.hold_connection();
        let (stream, two) = self.connect(caller).await?;
        self.two.set(two);
        if !two {
            let mut h1 = H1::new(stream, held, &self.desk);
            h1.caller = caller.map(Rc::downgrade);
            return Ok(Lease::H1(h1, self.clone()));
        }
        let h2 = H2::new(UpstreamIo(stream), held, &self.timers).await?;
        match caller {
            None => self.shared.borrow_mut().push(h2.clone()),
            Some(caller) => caller.share(self, h2.clone()),
        }
        drop(connecting);
        Ok(Lease::H2(h2.stream(false, self)))
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

    /// A connection of its own, as it is, for this client's tunnel.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub(crate) async fn dial(
        &self,
        caller: Option<&Rc<Caller>>,
        timeout: std::time::Duration,
    ) -> Result<(Stream, Held), ConnectError> {
        let timer = Timer::after(&self.timers, timeout);
        let held = self.hold_connection();
        let mut made = pin!(self.open(caller));
        let tcp = poll_fn(|cx| match made.as_mut().poll(cx) {
            Poll::Ready(made) => Poll::Ready(made.map_err(ConnectError::Io)),
            Poll::Pending => timer.poll(cx).map(|()| Err(ConnectError::Timeout)),
        });
        Ok((Stream::Plain(tcp.await?), held))
    }

    /// A connection that says who the client is, if the backend wants that.
    async fn open(&self, caller: Option<&Rc<Caller>>) -> io::Result<TcpStream> {
        let mut tcp = TcpStream::connect(self.backend.address).await?;
        tcp.set_nodelay(true)?;
        let version = self.pool.borrow().http.proxy_protocol;
        match (version, caller) {
            (None, None) => {}
            (Some(version), Some(caller)) => tcp.write_all(&caller.header(version)).await?,
            _ => return Err(io::Error::other("it is spoken to in another way now")),
        }
        Ok(tcp)
    }

    /// A connection, and whether HTTP/2 is spoken on it.
    async fn connect(&self, caller: Option<&Rc<Caller>>) -> io::Result<(Stream, bool)> {
        let pool = self.pool();
        let address = self.backend.address;
        let tcp = self.open(caller).await?;
        let Some(tls) = &pool.tls else {
            return Ok((Stream::Plain(tcp), pool.http.version == HttpVersion::Http2));
        };
        let connector = TlsConnector::from(tls.config());
        let stream = connector.connect(tls.name(address.ip()), tcp).await?;
        let said = stream.get_ref().1.alpn_protocol();
        let two = match (said, pool.http.version) {
            (Some(b"h2"), _) => true,
            (None, HttpVersion::Http2) => {
                return Err(io::Error::other(
                    "the backend does not offer HTTP/2 by ALPN",
                ));
            }
            _ => false,
        };
        Ok((Stream::Client(Box::new(stream)), two))
    }

    /// A stream of the HTTP/2 connection that has the fewest, if it may have more.
    fn open_stream(self: &Rc<Self>, caller: Option<&Rc<Caller>>) -> Option<super::h2::Stream> {
        let least = match caller {
            Some(caller) => caller.shared(self)?,
            None => {
                let mut shared = self.shared.borrow_mut();
                shared.retain(|h2| h2.is_open());
                shared.iter().min_by_key(|h2| h2.streams())?.clone()
            }
        };
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
