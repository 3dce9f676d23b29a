//! Listening on VIPs: a socket a worker on the same address, over which the kernel spreads
//! connections.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
};

use nix::{
    ifaddrs::getifaddrs,
    setsockopt_impl,
    sys::socket::{setsockopt, sockopt::SetUsize},
};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted; the kernel allows `net.core.somaxconn` of them.
const BACKLOG: i32 = 4096;

/// For how many seconds the kernel keeps a connection to itself whose client says nothing.
const SILENCE: usize = 1;

/// See tcp(7), `TCP_DEFER_ACCEPT`.
#[derive(Clone, Copy)]
struct DeferAccept;

setsockopt_impl!(
    DeferAccept,
    libc::IPPROTO_TCP,
    libc::TCP_DEFER_ACCEPT,
    usize,
    SetUsize
);

/// The sockets of one VIP and port.
pub(crate) struct Sockets {
    sockets: Vec<TcpListener>,
    workers: usize,
}

impl Sockets {
    /// Takes these, of an agent before this one, and binds as many more as it takes for each
    /// worker to have one. The address need not be on an interface (yet).
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn bind(
        address: SocketAddr,
        workers: usize,
        taken_over: &[TcpListener],
    ) -> io::Result<Self> {
        let old = taken_over.iter().map(TcpListener::try_clone);
        let new = taken_over.len()..workers;
        let sockets = old.chain(new.map(|_| listener(address)));
        let sockets = sockets.collect::<io::Result<_>>()?;
        Ok(Self { sockets, workers })
    }

    /// A worker's sockets: more than one where the agent before this one had more workers, as
    /// what waits in a socket is lost when that is closed.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn of(&self, worker: usize) -> io::Result<Vec<TcpListener>> {
        let own = self.sockets.iter().skip(worker).step_by(self.workers);
        own.map(TcpListener::try_clone).collect()
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    // Who is to speak first is the client, by HTTP as by TLS: there is nothing to do before.
    setsockopt(&socket, DeferAccept, &SILENCE)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Listening sockets by address; those of one address share its connections.
pub type Listening = BTreeMap<SocketAddr, Vec<TcpListener>>;

/// The listeners that there are, by address.
#[derive(Default)]
pub(crate) struct Listeners(BTreeMap<SocketAddr, Arc<Sockets>>);

/// Why a VIP cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for the service \"{service}\": {source}")]
pub struct ListenError {
    service: String,
    address: SocketAddr,
    source: io::Error,
}

impl Listeners {
    /// Those of these services: the old ones where there are, else those of the agent before
    /// this one, the rest newly bound.
    ///
    /// # Errors
    ///
    /// One cannot be bound; nothing has changed then.
    pub(crate) fn with<'a>(
        &self,
        services: impl Iterator<Item = (&'a str, SocketAddr)>,
        workers: usize,
        taken_over: &Listening,
    ) -> Result<Listeners, ListenError> {
        let mut next = BTreeMap::new();
        for (service, address) in services {
            let sockets = match self.0.get(&address) {
                Some(sockets) => sockets.clone(),
                None => {
                    let taken_over = taken_over.get(&address).map_or(&[][..], Vec::as_slice);
                    let sockets = Sockets::bind(address, workers, taken_over);
                    warn_if_nowhere(service, address.ip());
                    Arc::new(sockets.map_err(|source| ListenError {
                        service: service.to_owned(),
                        address,
                        source,
                    })?)
                }
            };
            next.insert(address, sockets);
        }
        Ok(Listeners(next))
    }

    /// All sockets, for another process.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn share(&self) -> io::Result<Listening> {
        let share = |(address, sockets): (&SocketAddr, &Arc<Sockets>)| {
            let shared = sockets.sockets.iter().map(TcpListener::try_clone);
            Ok((*address, shared.collect::<io::Result<_>>()?))
        };
        self.0.iter().map(share).collect()
    }

    /// The sockets on an address.
    pub(crate) fn get(&self, address: &SocketAddr) -> Option<&Arc<Sockets>> {
        self.0.get(address)
    }
}

/// The kernel drops what comes for an address that it does not have.
fn warn_if_nowhere(service: &str, vip: IpAddr) {
    let Ok(mut addresses) = getifaddrs() else {
        return;
    };
    let has = addresses.any(|interface| {
        let address = interface.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        });
        address == Some(vip)
    });
    if !has {
        let prefix = if vip.is_ipv4() { 32 } else { 128 };
        tracing::warn!(
            service,
            "{vip} is on no interface of this host, so the kernel will not hand its packets to the \
             proxy: `ip address add {vip}/{prefix} dev lo` gives it to this host"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Write as _},
        net::TcpStream,
    };

    use super::*;

    #[test]
    fn a_client_is_accepted_when_it_speaks_or_has_been_silent() {
        let listener = listener(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let early = listener.accept().map_err(|error| error.kind());
        assert_eq!(early.map(drop), Err(ErrorKind::WouldBlock));
        client.write_all(b"GET").unwrap();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let mut read = [0; 8];
        assert_eq!(accepted.peek(&mut read).unwrap(), 3);
        let _silent = TcpStream::connect(address).unwrap();
        listener.accept().unwrap();
    }
}
