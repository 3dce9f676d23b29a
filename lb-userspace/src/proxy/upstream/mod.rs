//! A worker's connections to a backend.

mod caller;
mod connect;
mod h1;
mod h2;
mod outliers;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use hyper::body::{Bytes, Frame, SizeHint};
use tokio::sync::Notify;

pub(crate) use self::{caller::Caller, connect::ConnectError, h1::H1, h2::H2};
use super::{
    backend::{Backend, Held},
    h1::{Desk, Nonsense},
    request::BodyError,
    snapshot::Pool,
    stats::BackendCell,
    timers::{Timers, ticks},
};
use crate::config::http::HttpVersion;

/// A backend, and this worker's connections to it.
pub(crate) struct Upstream {
    /// The backend.
    pub(crate) backend: Arc<Backend>,
    /// The pool that says how it is spoken to.
    pool: RefCell<Arc<Pool>>,
    /// How it is spoken to: another number, another way.
    manner: Cell<u32>,
    /// HTTP/2, as far as is known: where ALPN decides, what it said last.
    two: Cell<bool>,
    worker: usize,
    timers: Rc<Timers>,
    desk: Desk,
    /// HTTP/1 connections without a request, the last used last.
    idle: RefCell<Vec<H1>>,
    /// HTTP/2 connections.
    shared: RefCell<Vec<Rc<H2>>>,
    /// Answers that it was judged by.
    judged: Cell<u32>,
    /// An HTTP/2 connection is being made.
    connecting: Cell<bool>,
    /// Something of the above has changed.
    changed: Notify,
}

/// A connection that serves a request.
pub(crate) enum Lease {
    /// For it alone.
    H1(H1, Rc<Upstream>),
    /// Beside others.
    H2(h2::Stream),
}

/// Why there is no answer, or none that is whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// Nothing of the request was sent.
    #[error("nothing was sent")]
    Unsent,
    /// The client's body has no end.
    #[error("{0}")]
    Client(BodyError),
    /// The connection broke.
    #[error("{0}")]
    Io(io::Error),
    /// What came is no HTTP/1.
    #[error("{0}")]
    Nonsense(#[from] Nonsense),
    /// HTTP/2: hyper says why.
    #[error("{0:?}")]
    Two(hyper::Error),
    /// The time is over.
    #[error("the time is over")]
    Timeout,
}

impl Upstream {
    /// No connections yet.
    pub(crate) fn new(
        backend: Arc<Backend>,
        pool: Arc<Pool>,
        worker: usize,
        timers: Rc<Timers>,
        desk: Desk,
    ) -> Rc<Self> {
        Rc::new(Self {
            backend,
            two: Cell::new(pool.http.version == HttpVersion::Http2),
            pool: RefCell::new(pool),
            manner: Cell::new(0),
            worker,
            timers,
            desk,
            idle: RefCell::default(),
            shared: RefCell::default(),
            judged: Cell::new(0),
            connecting: Cell::new(false),
            changed: Notify::new(),
        })
    }

    /// This worker's counters of it.
    pub(crate) fn stats(&self) -> &BackendCell {
        self.backend.stats.of(self.worker)
    }

    /// The pool that says how it is spoken to.
    pub(crate) fn pool(&self) -> Arc<Pool> {
        self.pool.borrow().clone()
    }

    /// It is spoken to in this way from now on; connections that are spoken to in another serve
    /// out what they have.
    pub(crate) fn set_pool(&self, pool: &Arc<Pool>) {
        let old = self.pool.replace(pool.clone());
        let (old, new) = (&old.http, &pool.http);
        let alike = old.version == new.version
            && old.tls == new.tls
            && old.proxy_protocol == new.proxy_protocol;
        if !alike {
            self.manner.set(self.manner.get().wrapping_add(1));
            self.close_idle();
            self.two.set(new.version == HttpVersion::Http2);
        }
    }

    /// Closes idle connections that have ended or were idle for too long.
    pub(crate) fn sweep(&self) {
        let keepalive = self.pool.borrow().http.keepalive;
        let (now, keep) = (self.timers.now(), ticks(keepalive));
        let mut silent = Context::from_waker(Waker::noop());
        let fresh = |since: u32| now.saturating_sub(since) < keep;
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|h1| fresh(h1.idle_since) && h1.is_usable(&mut silent));
        drop(idle);
        let mut shared = self.shared.borrow_mut();
        shared.retain(|h2| h2.is_open() && (h2.streams() > 0 || fresh(h2.idle_since())));
    }

    /// Closes every connection that has no request: the backend is to be left alone.
    pub(crate) fn close_idle(&self) {
        self.idle.borrow_mut().clear();
        self.shared.borrow_mut().clear();
    }

    fn take_idle(&self, cx: &mut Context<'_>) -> Option<H1> {
        loop {
            let mut h1 = self.idle.borrow_mut().pop()?;
            if h1.is_usable(cx) {
                h1.reused = true;
                return Some(h1);
            }
        }
    }

    fn put_idle(&self, mut h1: H1) {
        h1.idle_since = self.timers.now();
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.pool.borrow().http.keep_idle as usize {
            idle.push(h1);
        }
        drop(idle);
        self.changed.notify_one();
    }

    fn hold_connection(&self) -> Held {
        self.backend.stats.of(self.worker).connections.add(1);
        Held::connection(&self.backend)
    }
}

impl Lease {
    /// The next piece of the answer's body.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unanswered>>> {
        match self {
            Lease::H1(h1, _) => h1.poll_body(cx),
            Lease::H2(stream) => stream.poll_body(cx),
        }
    }

    /// Whether nothing more comes of the answer's body.
    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Lease::H1(h1, _) => h1.is_end_stream(),
            Lease::H2(stream) => stream.is_end_stream(),
        }
    }

    /// How much more comes of it.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Lease::H1(h1, _) => h1.size_hint(),
            Lease::H2(stream) => stream.size_hint(),
        }
    }

    /// The answer is at its end: the connection may serve another request.
    pub(crate) fn give_back(self) {
        if let Lease::H1(mut h1, upstream) = self
            && h1.is_free()
        {
            match h1.caller.take().map(|caller| caller.upgrade()) {
                None => upstream.put_idle(h1),
                Some(None) => {}
                Some(Some(caller)) => {
                    h1.caller = Some(Rc::downgrade(&caller));
                    caller.put_idle(&upstream, h1);
                }
            }
        }
    }

    /// Reads an answer of which nobody wants the body.
    pub(crate) async fn throw_away(mut self) {
        while let Some(Ok(_)) = poll_fn(|cx| self.poll_body(cx)).await {}
        self.give_back();
    }

    /// Whether it had served before.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Lease::H1(h1, _) => h1.reused,
            Lease::H2(stream) => stream.reused,
        }
    }
}
