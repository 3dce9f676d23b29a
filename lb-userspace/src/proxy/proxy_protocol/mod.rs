//! The PROXY protocol, versions 1 and 2: who a proxied connection is from, said before its first
//! byte. <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Parsed, parse};
pub use write::{Details, TlsInfo, write, write_own};

/// What every header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Where a connection came from and where it went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What it connected to.
    pub destination: SocketAddr,
}

impl Addresses {
    /// Both of one family, as the headers need them: IPv4 if both are, else both IPv6.
    fn of_one_family(self) -> (IpAddr, IpAddr) {
        let source = self.source.ip().to_canonical();
        let destination = self.destination.ip().to_canonical();
        if source.is_ipv4() == destination.is_ipv4() {
            return (source, destination);
        }
        (wide(source).into(), wide(destination).into())
    }
}

fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
