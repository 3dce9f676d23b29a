//! A request's body on its way to a backend: streamed, counted, bounded, and its beginning kept
//! for another try.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    fmt::{self, Display},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use hyper::{
    HeaderMap,
    body::{Body, Bytes, Frame, SizeHint},
};

use crate::proxy::{client::ClientBody, timers::Timers};

/// Why a body ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The client left, or what it sent is no body.
    Client,
    /// It is longer than may be.
    TooLarge,
    /// It did not come in time.
    Slow,
    /// The backend's end: it broke, or stood still.
    Backend,
}

impl Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyError::Client => "the client's body broke off",
            BodyError::Slow => "the client's body did not come in time",
            BodyError::TooLarge => "the client's body is too large",
            BodyError::Backend => "the backend's body broke off",
        })
    }
}

impl Error for BodyError {}

/// A client's body, of which every try gets a [`RequestBody`].
pub(crate) struct Source {
    incoming: RefCell<ClientBody>,
    kept: RefCell<Kept>,
    timers: Rc<Timers>,
    /// Most bytes that it may have.
    limit: u64,
    /// Exact length, where the client says it.
    length: Option<u64>,
    received: Cell<u64>,
    /// The tick of the last piece.
    progress: Cell<u32>,
    /// Whether the client is being waited for.
    waiting: Cell<bool>,
    failed: Cell<Option<BodyError>>,
    ended: Cell<bool>,
}

#[derive(Default)]
struct Kept {
    pieces: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    bytes: usize,
    /// Most bytes that are kept.
    limit: usize,
    /// Whether something was let go.
    gone: bool,
}

impl Source {
    /// The body of a request; `keep` bytes of it may be kept.
    pub(crate) fn new(
        incoming: ClientBody,
        limit: u64,
        keep: usize,
        timers: &Rc<Timers>,
    ) -> Rc<Self> {
        Rc::new(Self {
            length: incoming.size_hint().exact(),
            incoming: RefCell::new(incoming),
            kept: RefCell::new(Kept {
                limit: keep,
                ..Kept::default()
            }),
            timers: timers.clone(),
            limit,
            received: Cell::new(0),
            progress: Cell::new(timers.now()),
            waiting: Cell::new(false),
            failed: Cell::new(None),
            ended: Cell::new(false),
        })
    }

    /// It from its beginning, if all that was received is still there.
    pub(crate) fn again(self: &Rc<Self>) -> Option<RequestBody> {
        let whole = !self.kept.borrow().gone && self.failed.get().is_none();
        whole.then(|| RequestBody::Client {
            source: self.clone(),
            given: 0,
        })
    }

    /// Bytes that came from the client.
    pub(crate) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Whether it came to its end.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// The tick since which the client is being waited for, if it is.
    pub(crate) fn waiting_since(&self) -> Option<u32> {
        self.waiting.get().then(|| self.progress.get())
    }

    /// The tick of the last piece.
    pub(crate) fn progress(&self) -> u32 {
        self.progress.get()
    }

    /// Why it ended before its end, if it did.
    pub(crate) fn failure(&self) -> Option<BodyError> {
        self.failed.get()
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut *self.incoming.borrow_mut()).poll_frame(cx);
        self.waiting.set(polled.is_pending());
        let frame = ready!(polled);
        self.progress.set(self.timers.now());
        let kept = &mut *self.kept.borrow_mut();
        let frame = match frame {
            None => {
                self.ended.set(true);
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.failed.set(Some(error));
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            let received = self.received.get() + data.len() as u64;
            self.received.set(received);
            if received > self.limit {
                self.failed.set(Some(BodyError::TooLarge));
                return Poll::Ready(Some(Err(BodyError::TooLarge)));
            }
            if !kept.gone && kept.bytes + data.len() <= kept.limit {
                kept.bytes += data.len();
                kept.pieces.push(data.clone());
            } else {
                kept.gone = true;
                kept.pieces = Vec::new();
            }
            if self.incoming.borrow().is_end_stream() {
                self.ended.set(true);
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.ended.set(true);
            kept.trailers = Some(trailers.clone());
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

/// A body for one try.
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// The client's.
    Client {
        /// Where it comes from.
        source: Rc<Source>,
        /// Pieces that this try has had.
        given: usize,
    },
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let RequestBody::Client { source, given } = &mut *self else {
            return Poll::Ready(None);
        };
        if let Some(error) = source.failed.get() {
            return Poll::Ready(Some(Err(error)));
        }
        let kept = source.kept.borrow();
        if let Some(piece) = kept.pieces.get(*given) {
            *given += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if source.ended.get() {
            let trailers = kept
                .trailers
                .as_ref()
                .filter(|_| *given == kept.pieces.len());
            let frame = trailers.map(|trailers| Ok(Frame::trailers(trailers.clone())));
            // Once.
            *given += 1;
            return Poll::Ready(frame);
        }
        drop(kept);
        let frame = ready!(source.poll_next(cx));
        // Trailers end a body, and come after its pieces: a try that had them has had more.
        *given += 1;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Client { source, given } => {
                let kept = source.kept.borrow();
                let all = *given >= kept.pieces.len() || kept.gone;
                source.incoming.borrow().is_end_stream() && all && kept.trailers.is_none()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            // Asked for before the first piece.
            RequestBody::Client { source, .. } => source
                .length
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
