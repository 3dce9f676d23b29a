//! One check of one target.

use std::{fmt, io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
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
    let connection = connect(address, deadline, || late("connection"));
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

async fn connect(
    address: SocketAddr,
    deadline: Instant,
    late: impl FnOnce() -> Failure,
) -> Result<TcpStream, Failure> {
    let socket = open(address).map_err(Failure::Local)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
            return Err(Failure::connect(error));
        }
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into()).map_err(Failure::Local)?;
    // An agent that is late itself asks the socket: what has come meanwhile has come.
    let _ = timeout_at(deadline, stream.writable()).await;
    if let Some(error) = stream.take_error().map_err(Failure::Local)? {
        return Err(Failure::connect(error));
    }
    match stream.peer_addr() {
        Ok(_) => Ok(stream),
        Err(_) => Err(late()),
    }
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    // Closed with a reset: a port in TIME_WAIT for each check would soon use them all up.
    socket.set_linger(Some(Duration::ZERO))?;
    // The ACK of the handshake waits for the request, or for the reset, which then spares the
    // server a connection to accept: as HAProxy does.
    socket.set_tcp_quickack(false)?;
    Ok(socket)
}
