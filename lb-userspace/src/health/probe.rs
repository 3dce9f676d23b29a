//! One check of one target.

use std::{fmt, io, net::SocketAddr};

use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout_at},
};

use super::{Check, Kind, failure::Failure, http};
use crate::proxy::proxy_protocol::write_own;

/// What a check that passed found.
#[derive(Debug)]
pub(super) enum Pass {
    Connected,
    Status(u16),
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Status(status) => write!(f, "status {status}"),
        }
    }
}

/// Checks `address` once, within [`Check::timeout`].
pub(super) async fn probe(address: SocketAddr, check: &Check) -> Result<Pass, Failure> {
    let deadline = Instant::now() + check.timeout;
    let late = |missing| Failure::TimedOut {
        after: check.timeout,
        missing,
    };
    let connection = async {
        timeout_at(deadline, connect(address))
            .await
            .map_err(|_| late("connection"))?
    };
    match &check.kind {
        Kind::Tcp => connection.await.map(|_| Pass::Connected),
        Kind::Http {
            path,
            host,
            status,
            body_contains,
        } => {
            let request = http::request(path, host.as_deref(), address)?;
            let mut connection = connection.await?;
            let exchange = async {
                if let Some(version) = check.proxy_protocol {
                    let header = write_own(version);
                    (connection.write_all(header).await).map_err(Failure::connect)?;
                }
                http::exchange(connection, request, status, body_contains.as_deref()).await
            };
            timeout_at(deadline, exchange)
                .await
                .map_err(|_| late("response"))?
        }
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    let socket = open(address).map_err(Failure::Local)?;
    socket.connect(address).await.map_err(Failure::connect)
}

fn open(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Closed with a reset: a port in TIME_WAIT for each check would soon use them all up.
    socket.set_zero_linger()?;
    // The ACK of the handshake waits for the request, or for the reset, which then spares the
    // server a connection to accept: as HAProxy does.
    SockRef::from(&socket).set_tcp_quickack(false)?;
    Ok(socket)
}
