//! A client's HTTP/2 connection.

use std::{convert::Infallible, future::poll_fn, pin::Pin, rc::Rc, task::Poll};

use hyper::{
    Request,
    body::{Bytes, Incoming},
    server::conn::http2::Builder,
    service::service_fn,
};

use super::{ClientBody, Link, SECOND, linger::linger, passed};
use crate::proxy::{
    executor::Local,
    h2_error::h2_error,
    io::{Http2Io, Stream},
    request::handle,
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
    /// hyper is done with it.
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
    let service = {
        let link = link.clone();
        service_fn(move |request: Request<Incoming>| {
            let link = link.clone();
            // In a box: hyper and the runtime move it several times before it is first polled.
            Box::pin(async move {
                let (parts, body) = request.into_parts();
                let mut answer = handle(&link, parts, ClientBody::Two(body), Ok(())).await;
                if let Some(lines) = answer.body_mut().take_lines() {
                    lines.add_to(answer.headers_mut());
                }
                Ok::<_, Infallible>(answer)
            })
        })
    };
    let limits = &http.limits;
    let mut connection = Box::new(
        Builder::new(Local)
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(u32::try_from(limits.header_size.0).unwrap_or(u32::MAX))
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(RESETS.0)
            .max_local_error_reset_streams(RESETS.1)
            .serve_connection(io.clone(), service),
    );
    let timer = Timer::new(&link.worker.timers);
    timer.set(SECOND);
    let mut told = false;
    let end = poll_fn(|cx| {
        if let Poll::Ready(done) = Pin::new(&mut *connection).poll(cx) {
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
            if link.listener.is_over(&link.worker) || (late && (told || link.in_flight.get() > 0)) {
                return Poll::Ready(End::Late);
            }
            goodbye |= late;
        }
        if goodbye && !told {
            told = true;
            Pin::new(&mut *connection).graceful_shutdown();
            if Pin::new(&mut *connection).poll(cx).is_ready() {
                return Poll::Ready(End::Done);
            }
        }
        Poll::Pending
    })
    .await;
    drop(connection);
    if let End::Flood = end {
        link.listener.service().stats().floods.add(1);
        tracing::debug!(client = %link.peer, "a flood of HTTP/2");
        if let Some(stream) = io.into_stream() {
            linger(link, stream).await;
        }
    }
}

/// Whether h2 has ended the connection as it became too much.
fn is_flood(error: &hyper::Error) -> bool {
    h2_error(error)
        .is_some_and(|h2| h2.is_library() && h2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}
