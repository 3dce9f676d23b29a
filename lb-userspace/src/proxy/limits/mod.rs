//! How often and how many at a time; shared by all workers.

use std::net::{IpAddr, Ipv6Addr};

mod connections;
mod rate;

pub use connections::{Admitted, ClientConnections};
pub use rate::RateLimiter;

/// Who is counted as one client: an IPv4 address, or an IPv6 network of 64 bits, as one host has
/// as many addresses of it as it likes.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}
