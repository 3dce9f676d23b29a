//! Who a proxy in front of Weir says that a connection is from.

use std::{future::poll_fn, net::SocketAddr, task::Poll};

use tokio::{io::ReadBuf, net::TcpStream};

use crate::proxy::{
    listener::Listener,
    local::Worker,
    proxy_protocol::{Parsed, parse},
    snapshot::Service,
    timers::Timer,
};

/// More than a header may have.
const ENOUGH: usize = 5000;

/// The client's address: the connection's, or what its PROXY header says, which is taken from it.
/// None: the header that it must have did not come, or is none.
pub(super) async fn peer(
    worker: &Worker,
    listener: &Listener,
    plan: &Service,
    tcp: &TcpStream,
    peer: SocketAddr,
) -> Option<SocketAddr> {
    let from = &plan.http.proxy_protocol_from;
    if !from.iter().any(|network| network.contains(peer.ip())) {
        return Some(peer);
    }
    Box::pin(header(worker, listener, plan, tcp, peer)).await
}

async fn header(
    worker: &Worker,
    listener: &Listener,
    plan: &Service,
    tcp: &TcpStream,
    peer: SocketAddr,
) -> Option<SocketAddr> {
    let timer = Timer::after(&worker.timers, plan.http.timeouts.handshake);
    let mut bytes = vec![0; ENOUGH];
    loop {
        let count = poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut bytes);
            match tcp.poll_peek(cx, &mut buffer) {
                Poll::Ready(peeked) => Poll::Ready(peeked.ok()),
                Poll::Pending if listener.is_over(worker) => Poll::Ready(None),
                Poll::Pending => timer.poll(cx).map(|()| None),
            }
        })
        .await
        .filter(|count| *count > 0)?;
        match parse(&bytes[..count]) {
            Parsed::Header { len, addresses } => {
                // They are there: no more is read than is the header's.
                let read = tcp.try_read(&mut bytes[..len]).ok()?;
                let said = addresses.map_or(peer, |addresses| addresses.source);
                let ip = said.ip().to_canonical();
                return (read == len).then_some(SocketAddr::new(ip, said.port()));
            }
            Parsed::Bad(why) => {
                tracing::debug!(%peer, "no PROXY header: {why}");
                return None;
            }
            // The same bytes are there at once again: wait for more of them.
            Parsed::More => {
                let pause = Timer::new(&worker.timers);
                pause.set(1);
                poll_fn(|cx| match timer.poll(cx) {
                    Poll::Ready(()) => Poll::Ready(()),
                    Poll::Pending => pause.poll(cx),
                })
                .await;
                if poll_fn(|cx| Poll::Ready(timer.poll(cx).is_ready())).await {
                    return None;
                }
            }
        }
    }
}
