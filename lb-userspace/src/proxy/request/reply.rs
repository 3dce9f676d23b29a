//! An answer's body on its way to the client.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::{body::BodyError, exchange::Exchange};
use crate::proxy::{h1::Lines, timers::Timer, upstream::Lease};

/// The body.
pub(crate) enum Reply {
    /// Weir's own.
    Own(Option<Bytes>),
    /// A backend's.
    Backend(Box<FromBackend>),
}

/// What a backend sends.
pub(crate) struct FromBackend {
    /// Headers that nobody has looked at.
    pub(crate) lines: Option<Lines>,
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

    /// Headers of the answer beside those in its map.
    pub(crate) fn take_lines(&mut self) -> Option<Lines> {
        match self {
            Reply::Own(_) => None,
            Reply::Backend(body) => body.lines.take(),
        }
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
            Reply::Backend(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Reply::Backend(body) => body.size_hint(),
        }
    }
}

impl FromBackend {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(lease) = &mut self.lease else {
            return Poll::Ready(None);
        };
        let polled = lease.poll_body(cx);
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
                if self.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                self.end();
                Poll::Ready(None)
            }
            Some(Err(_)) => Poll::Ready(Some(Err(self.fail()))),
        }
    }

    /// Whether nothing more comes.
    pub(crate) fn is_end_stream(&self) -> bool {
        (self.lease.as_ref()).is_none_or(|lease| lease.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let lease = self.lease.as_ref();
        lease.map_or(SizeHint::with_exact(0), |lease| lease.size_hint())
    }

    /// The connection can serve another.
    pub(crate) fn end(&mut self) {
        self.exchange.complete();
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    fn fail(&mut self) -> BodyError {
        self.exchange.broke();
        self.lease = None;
        BodyError::Backend
    }
}
