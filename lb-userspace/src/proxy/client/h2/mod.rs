//! A client's HTTP/2 connection: h2 speaks it, and each stream is a task of the worker's.

mod body;
mod stream;

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use h2::{
    Reason,
    server::{Builder, Connection, Handshake},
};
use hyper::body::Bytes;
use tokio::task::spawn_local;

pub(crate) use self::body::FromStream;
use super::{Link, SECOND, linger::linger, passed};
use crate::proxy::{
    io::{Http2Io, Stream},
    timers::Timer,
};

/// What clients may send before it is taken, of a stream and of a connection.
const WINDOWS: (u32, u32) = (256 * 1024, 1024 * 1024);

/// Bytes of a stream's answer that wait to be sent.
const SEND_BUFFER: usize = 128 * 1024;

/// Streams that were reset by the client and not yet looked at, and that were reset for the
/// client's errors; with more the connection ends (rapid reset, CVE-2023-44487 and -2025-8671).
const RESETS: (usize, usize) = (20, 128);

/// How the connection ends.
enum End {
    /// Both sides are done with it.
    Done,
    /// The client makes work without asking for anything; it has been told, where that could be.
    Flood,
    /// Something took too long.
    Late,
}

/// Serves the connection, of which the first bytes were read already.
pub(super) async fn serve(link: &Rc<Link>, stream: Stream, bytes: Bytes) {
    let http = link.listener.service().plan.http.clone();
    let io = Http2Io::new(stream, bytes, &link.traffic);
    let limits = &http.limits;
    let handshake = Builder::new()
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_size.0).unwrap_or(u32::MAX))
        .initial_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS.0)
        .max_local_error_reset_streams(Some(RESETS.1))
        .handshake(io.clone());
    let mut server = Server {
        link,
        phase: Phase::Opening(Box::new(handshake)),
        told: false,
    };
    let timer = Timer::new(&link.worker.timers);
    timer.set(SECOND);
    let end = poll_fn(|cx| {
        if let Poll::Ready(done) = server.poll(cx) {
            let flood = done.is_err_and(|error| is_flood(&error));
            return Poll::Ready(if flood { End::Flood } else { End::Done });
        }
        if io.is_flood() {
            io.calm(cx);
            return Poll::Ready(End::Flood);
        }
        let (traffic, timeouts) = (&link.traffic, &http.timeouts);
        let mut goodbye = link.listener.is_closing();
        while timer.poll(cx).is_ready() {
            timer.set(SECOND);
            let still = match (link.in_flight.get(), traffic.is_blocked()) {
                (0, false) => timeouts.keepalive,
                (_, true) => timeouts.idle,
                // Requests have deadlines of their own, save where the client takes no more of
                // an answer and leaves it at that.
                (_, false) => timeouts.idle.max(timeouts.tunnel),
            };
            let late = passed(link, traffic.last(), still);
            // Those who do not heed the goodbye are cut.
            if link.listener.is_over(&link.worker)
                || (late && (server.told || link.in_flight.get() > 0))
            {
                return Poll::Ready(End::Late);
            }
            goodbye |= late;
        }
        if goodbye && !server.told {
            server.say_goodbye();
            if server.poll(cx).is_ready() {
                return Poll::Ready(End::Done);
            }
        }
        Poll::Pending
    })
    .await;
    drop(server);
    if let End::Flood = end {
        link.listener.service().stats().floods.add(1);
        tracing::debug!(client = %link.peer, "a flood of HTTP/2");
        if let Some(stream) = io.into_stream() {
            linger(link, stream).await;
        }
    }
}

/// Whether h2 has ended the connection as it became too much.
fn is_flood(error: &h2::Error) -> bool {
    error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
}

/// The server's side of a connection.
struct Server<'a> {
    link: &'a Rc<Link>,
    phase: Phase,
    /// Whether the client is to ask for nothing more.
    told: bool,
}

enum Phase {
    Opening(Box<Handshake<Http2Io, Bytes>>),
    Open(Box<Connection<Http2Io, Bytes>>),
}

impl Server<'_> {
    /// Reads and writes what can be, and has what is asked answered. Ready: the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            match &mut self.phase {
                Phase::Opening(handshake) => {
                    let mut connection = Box::new(ready!(Pin::new(&mut **handshake).poll(cx))?);
                    if self.told {
                        connection.graceful_shutdown();
                    }
                    self.phase = Phase::Open(connection);
                }
                Phase::Open(connection) => match ready!(connection.poll_accept(cx)) {
                    None => return Poll::Ready(Ok(())),
                    Some(asked) => {
                        let (request, respond) = asked?;
                        spawn_local(stream::serve(self.link, request, respond));
                    }
                },
            }
        }
    }

    /// Has the client ask for nothing more (RFC 9113, section 6.8).
    fn say_goodbye(&mut self) {
        self.told = true;
        if let Phase::Open(connection) = &mut self.phase {
            connection.graceful_shutdown();
        }
    }
}
