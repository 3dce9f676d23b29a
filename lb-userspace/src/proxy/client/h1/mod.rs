//! A client's HTTP/1 connection. While it has nothing to do it is given no memory but for its state;
//! while it is asked, one task reads, asks a backend and writes, with no channels in between.

mod answer;
mod head;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
};

use hyper::{Request, Response, body::Bytes, http::request::Parts};

pub(crate) use self::wire::FromClient;
use self::{
    answer::{Asked, answer},
    head::{Head, Seen},
    wire::Wire,
};
use super::{ClientBody, Link, SECOND, linger::linger, passed};
use crate::proxy::{
    h1::{Body, Broken, Outgoing},
    io::Stream,
    request::{Handled, Refusal, Reply, handle},
    timers::{Timer, ticks},
};

/// Most bytes that are read of a body that nobody wants, for the connection to go on.
const UNWANTED: usize = 64 * 1024;

/// How the connection ends.
enum End {
    /// There was an answer, or was nothing to answer: the client is let take all of it.
    Done,
    /// Likewise, and the client sends nothing more.
    Whole,
    /// The client has left, or something took too long.
    Gone,
    /// The answer broke off: the client must not take it for a whole one.
    Broken,
}

/// What comes in place of a request.
enum Instead {
    Nonsense(Refusal),
    End(End),
}

/// Serves the connection, of which the first bytes were read already.
pub(super) async fn serve(link: &Rc<Link>, stream: Stream, bytes: Bytes) {
    let wire = Wire::new(&link.traffic, &link.worker.desk, stream, bytes);
    let timer = Timer::new(&link.worker.timers);
    let end = loop {
        if let Err(end) = turn(link, &wire, &timer).await {
            break end;
        }
    };
    let (Some(stream), read) = wire.end() else {
        return;
    };
    if let Some(tunnel) = link.tunnel.take() {
        // Rare and large: not a part of what every connection costs.
        return Box::pin(tunnel.run(link, stream, read)).await;
    }
    match end {
        End::Gone => {}
        End::Broken => stream.reset(),
        // Nothing comes that would have the kernel send a reset, so it is closed at once. Whether
        // the client takes it, none waits for.
        End::Whole if read.is_empty() && !link.is_tls() => {}
        End::Done | End::Whole => linger(link, stream).await,
    }
}

/// Answers one request. An error: it was the last.
async fn turn(link: &Rc<Link>, wire: &Rc<Wire>, timer: &Timer) -> Result<(), End> {
    // What is large is in a box or gone while this waits, as every connection has room for it.
    let (asked, whole, mut handled) = match coming(link, wire, timer).await {
        Ok(head) => {
            let whole = !head.keeps && matches!(head.body, Ok(Body::Ended));
            (Asked::by(&head), whole, begin(link, wire, head))
        }
        Err(Instead::Nonsense(refusal)) => {
            link.listener.service().stats().malformed.add(1);
            let (mut outgoing, _) = outgoing(link, wire, refusal.answer(), Asked::NONSENSE);
            sent(link, wire, timer, &mut outgoing).await?;
            return Err(End::Done);
        }
        Err(Instead::End(end)) => return Err(end),
    };
    timer.set(SECOND);
    let response = poll_fn(|cx| match handled.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Ok(response)),
        Poll::Pending => watch(link, wire, timer, cx).map(Err),
    });
    let (mut outgoing, keeps) = outgoing(link, wire, response.await?, asked);
    drop(handled);
    sent(link, wire, timer, &mut outgoing).await?;
    drop(outgoing);
    if keeps && poll_fn(|cx| Poll::Ready(wire.drain(UNWANTED, cx))).await {
        return Ok(());
    }
    Err(if whole { End::Whole } else { End::Done })
}

/// Waits for a request.
async fn coming(link: &Link, wire: &Wire, timer: &Timer) -> Result<Head, Instead> {
    let (mut seen, mut begun) = (Seen::default(), false);
    timer.set(ticks(link.listener.service().plan.http.timeouts.keepalive));
    poll_fn(|cx| {
        loop {
            let service = link.listener.service();
            let http = &service.plan.http;
            let (taken, there) = wire.with_read(|read| {
                let taken = match read.is_empty() {
                    true => Ok(None),
                    false => head::take(read, &mut seen, &http.limits),
                };
                (taken, !read.is_empty())
            });
            match taken {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Err(Instead::Nonsense(refusal))),
            }
            if there && !begun {
                begun = true;
                timer.set(ticks(http.timeouts.header));
            }
            let end = match wire.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => continue,
                Poll::Ready(_) => End::Gone,
                Poll::Pending if begun => {
                    if !link.listener.is_over(&link.worker) && timer.poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    End::Gone
                }
                Poll::Pending => {
                    if !link.is_to_end() && timer.poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    End::Done
                }
            };
            return Poll::Ready(Err(Instead::End(end)));
        }
    })
    .await
}

/// Begins to have a request answered.
fn begin(link: &Rc<Link>, wire: &Rc<Wire>, head: Head) -> Handled {
    let (body, framed) = match head.body {
        Ok(Body::Ended) => (ClientBody::Empty, Ok(())),
        Ok(body) => {
            let body = FromClient::new(wire, body, head.expects);
            (ClientBody::One(body), Ok(()))
        }
        Err(refusal) => (ClientBody::Empty, Err(refusal)),
    };
    let (mut parts, ()): (Parts, ()) = Request::new(()).into_parts();
    parts.method = head.method;
    parts.uri = head.uri;
    parts.version = head.version;
    parts.headers = head.headers;
    handle(link, parts, body, framed)
}

/// An answer as it is sent, and whether the connection outlives it.
fn outgoing(
    link: &Link,
    wire: &Wire,
    mut response: Response<Reply>,
    mut asked: Asked,
) -> (Outgoing<Reply>, bool) {
    wire.answers();
    asked.keeps &= !link.listener.is_closing();
    let lines = response.body_mut().take_lines();
    answer(response, lines.as_ref(), asked, &link.worker.date)
}

/// Sends an answer.
async fn sent(
    link: &Link,
    wire: &Wire,
    timer: &Timer,
    outgoing: &mut Outgoing<Reply>,
) -> Result<(), End> {
    timer.set(SECOND);
    poll_fn(|cx| match outgoing.poll(&mut &*wire, cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
        Poll::Ready(Err(Broken::Io(_))) => Poll::Ready(Err(End::Gone)),
        Poll::Ready(Err(Broken::Body(_) | Broken::Length)) => Poll::Ready(Err(End::Broken)),
        Poll::Pending => watch(link, wire, timer, cx).map(Err),
    })
    .await
}

/// Looks on while a request is under way: it has deadlines of its own, but for a client that takes
/// no more of the answer, or leaves.
fn watch(link: &Link, wire: &Wire, timer: &Timer, cx: &mut Context<'_>) -> Poll<End> {
    if wire.poll_gone(cx).is_ready() {
        return Poll::Ready(End::Gone);
    }
    while timer.poll(cx).is_ready() {
        timer.set(SECOND);
        let idle = link.listener.service().plan.http.timeouts.idle;
        let stuck = link.traffic.is_blocked() && passed(link, link.traffic.last_write(), idle);
        if stuck || link.listener.is_over(&link.worker) {
            return Poll::Ready(End::Gone);
        }
    }
    Poll::Pending
}
