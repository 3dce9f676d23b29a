//! An answer's body on its way to the client.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::{body::BodyError, exchange::Exchange};
use crate::proxy::{timers::Timer, upstream::Lease};

/// The body.
pub(crate) enum Reply {
    /// Weir's own.
    Own(Option<Bytes>),
    /// A backend's.
    Backend(Box<FromBackend>),
}

/// What a backend sends.
pub(crate) struct FromBackend {
    pub(crate) incoming: Incoming,
    /// The connection, which is driven from here, until the answer's end.
    pub(crate) lease: Option<Lease>,
    pub(crate) exchange: Exchange,
    /// How long it may stand still.
    pub(crate) idle: u32,
    pub(crate) timer: Option<Timer>,
}

impl Reply {
    /// These bytes.
    pub(crate) fn full(bytes: Bytes) -> Reply {
        Reply::Own(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// Nothing.
    pub(crate) fn empty() -> Reply {
        Reply::Own(None)
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Reply::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Reply::Backend(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Reply::Own(bytes) => bytes.is_none(),
            Reply::Backend(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Reply::Backend(body) => body.incoming.size_hint(),
        }
    }
}

impl FromBackend {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.lease {
            Some(lease) => lease.poll_body(&mut self.incoming, cx),
            None => Pin::new(&mut self.incoming).poll_frame(cx),
        };
        if polled.is_pending() {
            let timers = &self.exchange.link.worker.timers;
            let idle = self.idle;
            let timer = self.timer.get_or_insert_with(|| {
                let timer = Timer::new(timers);
                timer.set(idle);
                timer
            });
            if timer.poll(cx).is_ready() {
                return Poll::Ready(Some(Err(self.fail())));
            }
        }
        match ready!(polled) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.exchange.sent(data.len() as u64);
                }
                if let Some(timer) = &self.timer {
                    timer.set(self.idle);
                }
                if self.incoming.is_end_stream() {
                    self.end(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                self.end(cx);
                Poll::Ready(None)
            }
            Some(Err(_)) => Poll::Ready(Some(Err(self.fail()))),
        }
    }

    /// The connection can serve another.
    pub(crate) fn end(&mut self, cx: &mut Context<'_>) {
        self.exchange.complete();
        if let Some(lease) = self.lease.take() {
            lease.give_back(cx);
        }
    }

    fn fail(&mut self) -> BodyError {
        self.exchange.broke();
        self.lease = None;
        BodyError::Backend
    }
}
