//! A client's connection, from accept to close.

mod body;
mod h1;
mod h2;
mod linger;
mod link;
mod proxied;
mod tls;

use std::{future::poll_fn, io, net::SocketAddr, rc::Rc, task::Poll};

use hyper::body::Bytes;
use tokio::{io::ReadBuf, net::TcpStream};

pub(crate) use self::{body::ClientBody, link::Link};
use super::{
    io::Stream,
    listener::Listener,
    local::Worker,
    timers::{Timer, ticks},
};

/// How HTTP/2 begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection to its end.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    tcp: TcpStream,
    peer: SocketAddr,
) {
    let service = listener.service();
    let plan = service.plan.clone();
    drop(service);
    let most = plan.http.limits.connections_per_client;
    let Some(peer) = proxied::peer(&worker, &listener, &plan, &tcp, peer).await else {
        return;
    };
    // Counted until the connection is over.
    let admitted = most.map(|most| plan.clients.admit(peer.ip(), most));
    if let Some(None) = admitted {
        return;
    }
    let link = Link::new(worker, listener, peer);
    let mut stream = match &plan.tls {
        None => Stream::Plain(tcp),
        // In a box, as HTTP/2 is: what is over is not a part of what an idle connection costs.
        Some(tls) => match Box::pin(tls::accept(&link, &plan, tls, tcp)).await {
            Some(stream) => stream,
            None => return,
        },
    };
    let wait = plan.http.timeouts.header;
    drop(plan);
    match first_bytes(&link, &mut stream, wait).await {
        None => {}
        Some(bytes) if bytes.starts_with(PREFACE) => {
            Box::pin(h2::serve(&link, stream, bytes)).await
        }
        Some(bytes) => h1::serve(&link, stream, bytes).await,
    }
}

/// What a new connection begins with: enough to tell which HTTP it is.
async fn first_bytes(link: &Link, stream: &mut Stream, wait: std::time::Duration) -> Option<Bytes> {
    let timer = Timer::after(&link.worker.timers, wait);
    let mut bytes = Bytes::new();
    loop {
        let more = read_some(link, stream, &timer).await?;
        bytes = match bytes.is_empty() {
            true => more,
            false => [bytes, more].concat().into(),
        };
        if bytes.len() >= PREFACE.len() || !PREFACE.starts_with(&bytes) {
            return Some(bytes);
        }
    }
}

/// Waits for bytes with nothing allocated to hold them. None: the connection has ended, the time
/// is over, or the listener closes, which a connection that has not asked for anything outlives:
/// its client could not know.
async fn read_some(link: &Link, stream: &mut Stream, timer: &Timer) -> Option<Bytes> {
    let read: io::Result<Bytes> = poll_fn(|cx| {
        let mut scratch = link.worker.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        match stream.poll_read(cx, &mut buffer) {
            Poll::Ready(read) => {
                Poll::Ready(read.map(|()| Bytes::copy_from_slice(buffer.filled())))
            }
            Poll::Pending if link.is_to_end() => Poll::Ready(Ok(Bytes::new())),
            Poll::Pending => timer.poll(cx).map(|()| Ok(Bytes::new())),
        }
    })
    .await;
    let bytes = read.ok().filter(|bytes| !bytes.is_empty())?;
    link.traffic.touch();
    Some(bytes)
}

/// Ticks of a second, the pace at which connections that do nothing are looked at.
const SECOND: u32 = 10;

/// Whether so much time has passed since a tick.
fn passed(link: &Link, since: u32, time: std::time::Duration) -> bool {
    link.worker.timers.now().saturating_sub(since) >= ticks(time)
}
