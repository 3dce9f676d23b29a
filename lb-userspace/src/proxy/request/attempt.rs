//! One try: a connection, the request on it, the answer's headers.

use std::{
    error::Error as _,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    AnswerHead, RequestHead,
    body::{BodyError, RequestBody, Source},
};
use crate::{
    config::http::Timeouts,
    proxy::{
        timers::{Timer, Timers, ticks},
        upstream::{Caller, ConnectError, Lease, Unanswered, Upstream},
    },
};

/// Why a try has failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There was no connection.
    Connect(ConnectError),
    /// The circuit breaker does not let it.
    Breaker,
    /// Nothing of it was sent.
    Unsent,
    /// The backend says that it did nothing with it.
    Unprocessed,
    /// A connection that had served before closed.
    Closed,
    /// A new connection broke.
    Reset,
    /// The answer did not come in time.
    Timeout,
    /// The whole exchange takes too long.
    Late,
    /// A status that is to be tried again.
    Status(u16),
    /// The client's body.
    Client(BodyError),
    /// What came is no answer.
    Nonsense,
}

/// How long a try may take.
#[derive(Clone, Copy)]
pub(super) struct Times {
    /// Until there is a connection.
    pub(super) connect: Duration,
    /// From the end of the request to the answer's headers.
    pub(super) response: Duration,
    /// Between two pieces of the client's body.
    pub(super) body: Duration,
    /// Until the backend takes more of it.
    pub(super) idle: Duration,
    /// The tick at which the whole exchange is over.
    pub(super) over: u32,
}

impl Times {
    /// As a route says, from now on.
    pub(super) fn of(timeouts: &Timeouts, timers: &Timers) -> Times {
        let total = timeouts.total;
        Times {
            connect: timeouts.connect,
            response: timeouts.response,
            body: timeouts.body,
            idle: timeouts.idle,
            over: total.map_or(u32::MAX, |total| timers.now().saturating_add(ticks(total))),
        }
    }
}

/// Tries; `caller` is the client if the backend is told of it.
///
/// # Errors
///
/// See [`Failure`].
pub(super) async fn attempt(
    upstream: &Rc<Upstream>,
    timers: &Rc<Timers>,
    caller: Option<Rc<Caller>>,
    (head, body): (&RequestHead, RequestBody),
    source: Option<&Rc<Source>>,
    times: &Times,
) -> Result<(AnswerHead, Lease), Failure> {
    let left = Duration::from_millis(100) * times.over.saturating_sub(timers.now());
    let lease = upstream.lease(caller.as_ref(), times.connect.min(left));
    let mut lease = lease.await.map_err(|error| match error {
        ConnectError::Breaker => Failure::Breaker,
        error => Failure::Connect(error),
    })?;
    let deadline = Deadline::new(timers, source, times);
    let over = |cx: &mut Context<'_>| deadline.poll(cx);
    let answered = match &mut lease {
        Lease::H1(h1, _) => h1.exchange(head, body, over).await,
        // In a box: it is large, and would be a part of every request's future.
        Lease::H2(stream) => Box::pin(stream.exchange(head, body, over)).await,
    };
    let error = match answered {
        Ok(response) => return Ok((response, lease)),
        Err(error) => error,
    };
    tracing::debug!(backend = %upstream.backend.address, "no answer: {error}");
    // Where its body broke off, the rest is for that reason.
    if let Some(error) = source.and_then(|source| source.failure()) {
        return Err(Failure::Client(error));
    }
    Err(match error {
        Unanswered::Unsent => Failure::Unsent,
        Unanswered::Timeout => deadline.why(),
        Unanswered::Client(error) => Failure::Client(error),
        Unanswered::Nonsense(_) => Failure::Nonsense,
        Unanswered::Io(_) => closed(lease.is_reused()),
        Unanswered::Two(error) => two(&error, lease.is_reused()),
    })
}

/// What an error of HTTP/2, which hyper has from h2, comes down to.
fn two(error: &hyper::Error, reused: bool) -> Failure {
    let h2 = error.source().and_then(|source| source.downcast_ref());
    let Some(h2): Option<&h2::Error> = h2 else {
        return closed(reused);
    };
    let refused = h2.reason() == Some(h2::Reason::REFUSED_STREAM);
    // A GOAWAY whose last stream is lower: h2 says so of streams that were not processed.
    let unprocessed = h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR);
    match () {
        () if refused || unprocessed => Failure::Unprocessed,
        () if h2.is_io() || h2.is_go_away() => closed(reused),
        () => Failure::Reset,
    }
}

fn closed(reused: bool) -> Failure {
    match reused {
        true => Failure::Closed,
        false => Failure::Reset,
    }
}

/// When a try is over; looked at twice a second, as what counts changes while it goes on.
struct Deadline<'a> {
    timers: &'a Timers,
    timer: Timer,
    source: Option<&'a Rc<Source>>,
    times: &'a Times,
    began: u32,
}

/// Ticks between two looks.
const LOOK: u32 = 5;

impl<'a> Deadline<'a> {
    fn new(timers: &'a Rc<Timers>, source: Option<&'a Rc<Source>>, times: &'a Times) -> Self {
        let deadline = Self {
            timers,
            timer: Timer::new(timers),
            source,
            times,
            began: timers.now(),
        };
        deadline.timer.set(deadline.look());
        deadline
    }

    /// Ticks until the next look.
    fn look(&self) -> u32 {
        ticks(self.times.response).min(LOOK)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.poll(cx).is_ready() {
            if self.reason().is_some() {
                return Poll::Ready(());
            }
            self.timer.set(self.look());
        }
        Poll::Pending
    }

    fn why(&self) -> Failure {
        self.reason().unwrap_or(Failure::Timeout)
    }

    /// What has taken too long, if anything has.
    fn reason(&self) -> Option<Failure> {
        let now = self.timers.now();
        let late = |since: u32, time: Duration| now.saturating_sub(since) >= ticks(time);
        if now >= self.times.over {
            return Some(Failure::Late);
        }
        let Some(source) = self.source.filter(|source| !source.has_ended()) else {
            let since = self.source.map_or(self.began, |source| source.progress());
            return late(since.max(self.began), self.times.response).then_some(Failure::Timeout);
        };
        match source.waiting_since() {
            Some(since) => {
                let since = since.max(self.began);
                late(since, self.times.body).then_some(Failure::Client(BodyError::Slow))
            }
            None => {
                let since = source.progress().max(self.began);
                late(since, self.times.idle).then_some(Failure::Timeout)
            }
        }
    }
}
