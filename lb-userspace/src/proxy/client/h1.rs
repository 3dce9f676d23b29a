//! A client's HTTP/1 connection. While it has nothing to do it is given no memory: hyper's state
//! and buffers are taken down soon after a request, and made anew for the next.

use std::{
    convert::identity,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use hyper::{body::Bytes, server::conn::http1::Builder, service::service_fn};

use super::{Link, linger::linger, passed, read_some};
use crate::{
    config::http::Http,
    proxy::{
        io::{ClientIo, Stream},
        request::handle,
        timers::Timer,
    },
};

/// Ticks between two looks at a connection, and without a byte until it gives its memory back: not
/// so few that clients who ask again at once pay for it, and so few that the next connections can
/// have the same memory.
const LOOK: u32 = 2;

/// How a spell of hyper's ends.
enum End {
    /// hyper has nothing left to do, or gave up.
    Done,
    /// The answer broke off: the client must not take it for a whole one.
    Broken,
    /// Nothing goes on, and nothing is under way.
    Idle,
    /// Something took too long.
    Late,
}

/// Serves the connection, of which the first bytes were read already.
pub(super) async fn serve(link: &Rc<Link>, mut stream: Stream, mut bytes: Bytes) {
    loop {
        let http = link.listener.service().plan.http.clone();
        let builder = builder(&http);
        link.number.set(0);
        link.traffic.guard.restart();
        let io = ClientIo {
            stream,
            prefix: bytes,
            traffic: link.traffic.clone(),
            frames: None,
        };
        let service = service_fn(|request| handle(link.clone(), request));
        let mut connection = Box::new(builder.serve_connection(io, service));
        let end = {
            let watch = Watch::new(link, &http);
            let mut told = false;
            poll_fn(|cx| {
                if let Poll::Ready(done) = Pin::new(&mut *connection).poll(cx) {
                    let broken = done.is_err_and(|error| error.is_user());
                    return Poll::Ready(if broken { End::Broken } else { End::Done });
                }
                if link.listener.is_closing() && !told {
                    told = true;
                    Pin::new(&mut *connection).graceful_shutdown();
                    if Pin::new(&mut *connection).poll(cx).is_ready() {
                        return Poll::Ready(End::Done);
                    }
                }
                watch.poll(cx)
            })
            .await
        };
        // Passed on for the box to go here, and not where the name does: after the wait for the next
        // request.
        let parts = identity(connection).into_parts();
        stream = parts.io.stream;
        match end {
            End::Done => {
                let tunnel = link.tunnel.borrow_mut().take();
                return match tunnel {
                    // Rare and large: not a part of what every connection costs.
                    Some(tunnel) => Box::pin(tunnel.run(link, stream, parts.read_buf)).await,
                    // Nothing comes that would have the kernel send a reset.
                    None if link.has_all.get() && parts.read_buf.is_empty() && !link.is_tls() => {}
                    None => linger(link, stream).await,
                };
            }
            End::Broken => return stream.reset(),
            End::Late => return,
            End::Idle => {}
        }
        bytes = match parts.read_buf {
            read if !read.is_empty() => read,
            empty => {
                // It is a part of hyper's buffer, and would keep it.
                drop(empty);
                let timer = Timer::after(&link.worker.timers, http.timeouts.keepalive);
                match read_some(link, &mut stream, &timer).await {
                    Some(more) => more,
                    None => return linger(link, stream).await,
                }
            }
        };
    }
}

fn builder(http: &Http) -> Builder {
    let mut builder = Builder::new();
    let head = http.limits.header_size.0 as usize;
    builder
        .max_header_size(head)
        .max_buf_size(head.max(64 * 1024) + 8192)
        // Deadlines are the link's.
        .header_read_timeout(None)
        .auto_date_header(true);
    if http.limits.headers != 100 {
        builder.max_headers(http.limits.headers as usize);
    }
    builder
}

/// Looks now and then whether anything goes on.
struct Watch<'a> {
    link: &'a Link,
    http: &'a Http,
    timer: Timer,
}

impl<'a> Watch<'a> {
    fn new(link: &'a Link, http: &'a Http) -> Self {
        let timer = Timer::new(&link.worker.timers);
        timer.set(LOOK);
        Self { link, http, timer }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<End> {
        let link = self.link;
        let idle = link.in_flight.get() == 0 && !link.traffic.is_blocked();
        // Whatever follows a chunked request must begin anew, for the guard to see it. Where its
        // body was not read to the end, that cannot be.
        if idle && link.traffic.guard.is_lost() {
            return Poll::Ready(match link.body_open.get() {
                true => End::Done,
                false => End::Idle,
            });
        }
        while self.timer.poll(cx).is_ready() {
            if let Some(end) = self.look(idle) {
                return Poll::Ready(end);
            }
            self.timer.set(LOOK);
        }
        Poll::Pending
    }

    fn look(&self, idle: bool) -> Option<End> {
        let (link, timeouts) = (self.link, &self.http.timeouts);
        let traffic = &link.traffic;
        if link.listener.is_over(&link.worker) {
            return Some(End::Late);
        }
        if traffic.is_blocked() {
            let stuck = passed(link, traffic.last_write(), timeouts.idle);
            return stuck.then_some(End::Late);
        }
        if !idle {
            // The request has deadlines of its own.
            return None;
        }
        if traffic.guard.is_inside() {
            let late = passed(link, traffic.head_began(), timeouts.header);
            return late.then_some(End::Late);
        }
        if link.body_open.get() {
            // hyper reads what is left of it.
            let late = passed(link, traffic.last_read(), timeouts.body);
            return late.then_some(End::Late);
        }
        let quiet = link.worker.timers.now().saturating_sub(traffic.last()) >= LOOK;
        quiet.then_some(End::Idle)
    }
}
