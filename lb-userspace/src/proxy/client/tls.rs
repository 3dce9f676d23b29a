//! TLS with a client: the handshake, or the connection passed on as it is by the name that the
//! client asks for.

use std::{future::poll_fn, io, pin::pin, rc::Rc, sync::Arc, task::Poll};

use hyper::body::Bytes;
use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::Link;
use crate::proxy::{
    balance::{Tried, pick},
    io::Stream,
    local::LocalPool,
    proxy_protocol::{Details, TlsInfo},
    request::Exchange,
    snapshot::{Pool, Service, ServiceTls},
    timers::Timer,
    tls::{LARGEST_HELLO, Peek, peek},
    tunnel::Tunnel,
};

/// The connection as HTTP is to be spoken on it. None: it has ended, or was passed on.
pub(super) async fn accept(
    link: &Rc<Link>,
    plan: &Arc<Service>,
    tls: &ServiceTls,
    tcp: TcpStream,
) -> Option<Stream> {
    let timer = Timer::after(&link.worker.timers, plan.http.timeouts.handshake);
    let config = match (&tls.server, tls.passthrough.is_empty()) {
        (Some(server), true) => server.config(),
        (server, _) => {
            let name = peeked(link, &tcp, &timer).await?;
            if let Some(pool) = tls.passthrough.pool(name.as_deref()) {
                link.introduce(Details {
                    name,
                    ..Details::default()
                });
                pass_on(link, pool, tcp).await;
                return None;
            }
            server.as_ref()?.config()
        }
    };
    let mut handshake = pin!(TlsAcceptor::from(config).accept(tcp));
    let accepted = poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Ready(accepted) => Poll::Ready(accepted),
        Poll::Pending => timer.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
    })
    .await;
    match accepted {
        Ok(stream) => {
            if let Some(headers) = &tls.identity {
                let certificates = stream.get_ref().1.peer_certificates();
                link.set_identity(headers.of(certificates));
            }
            let session = stream.get_ref().1;
            let version = session
                .protocol_version()
                .and_then(|version| version.as_str());
            let cipher = session.negotiated_cipher_suite();
            let cipher = cipher.and_then(|cipher| cipher.suite().as_str());
            link.set_tls(version.unwrap_or("TLS"), cipher.unwrap_or_default());
            let told = |pool: &Arc<Pool>| pool.http.proxy_protocol.is_some();
            if plan.pools.iter().any(told) {
                link.introduce(details(session));
            }
            Some(Stream::Server(Box::new(stream)))
        }
        Err(error) => {
            tracing::debug!(client = %link.peer, "no TLS: {error}");
            None
        }
    }
}

/// What backends are told of TLS with a client.
fn details(session: &ServerConnection) -> Details {
    let version = session
        .protocol_version()
        .and_then(|version| version.as_str());
    Details {
        name: session.server_name().map(str::to_owned),
        alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        tls: version.map(|version| TlsInfo {
            // rustls has no dots in it.
            version: version.replace('_', "."),
            certificate: session.peer_certificates().is_some(),
        }),
    }
}

/// The name in a ClientHello, which stays in the socket. None: there is no ClientHello.
async fn peeked(link: &Link, tcp: &TcpStream, timer: &Timer) -> Option<Option<String>> {
    let mut bytes = vec![0; 2048];
    loop {
        let count = poll_fn(|cx| {
            let mut buffer = tokio::io::ReadBuf::new(&mut bytes);
            match tcp.poll_peek(cx, &mut buffer) {
                Poll::Ready(peeked) => Poll::Ready(peeked.ok()),
                Poll::Pending if link.is_to_end() => Poll::Ready(None),
                Poll::Pending => timer.poll(cx).map(|()| None),
            }
        })
        .await
        .filter(|count| *count > 0)?;
        match peek(&bytes[..count]) {
            Peek::Hello(name) => return Some(name),
            Peek::NotTls => return None,
            Peek::More if count == bytes.len() && count < LARGEST_HELLO => {
                bytes.resize(LARGEST_HELLO, 0);
            }
            // The same bytes are there at once again: wait for more of them.
            Peek::More => {
                let pause = Timer::new(&link.worker.timers);
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

/// Joins the client to a backend of a pool.
async fn pass_on(link: &Rc<Link>, pool: &str, tcp: TcpStream) {
    let exchange = Exchange::begin(link);
    let service = exchange.service.clone();
    let found = service.pools.iter().find(|known| known.plan.name == pool);
    let Some(pool) = found else { return };
    if let Some(tunnel) = open(exchange, pool).await {
        tunnel.run(link, Stream::Plain(tcp), Bytes::new()).await;
    }
}

/// Like a request: another backend where one cannot be reached.
async fn open(mut exchange: Exchange, pool: &Rc<LocalPool>) -> Option<Tunnel> {
    let service = exchange.service.clone();
    let (http, client) = (&service.plan.http, exchange.link.peer.ip());
    let hash = crate::dataplane::identity_at(client, 0);
    let mut tried = Tried::default();
    for _ in 0..=http.retries.attempts {
        let (place, upstream) = pick(pool, http.balance, hash, &tried)?;
        tried.add(place);
        exchange.goes_to(pool, &upstream);
        let caller = exchange.link.caller(&pool.plan);
        match upstream.dial(caller.as_ref(), http.timeouts.connect).await {
            Ok((backend, held)) => {
                service.stats().tunnels.add(1);
                return Some(Tunnel {
                    backend,
                    read: Bytes::new(),
                    exchange,
                    silence: http.timeouts.tunnel,
                    held,
                });
            }
            Err(error) => upstream.failed(pool, &crate::proxy::request::Failure::Connect(error)),
        }
    }
    None
}
