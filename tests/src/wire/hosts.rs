//! Who is who on the wire. All addresses are private, or set aside for documentation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Both families, as the data path numbers them.
pub const FAMILIES: [u8; 2] = [4, 6];

/// An Ethernet address.
pub type Mac = [u8; 6];

/// A host with an address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Host {
    /// Its address of a family.
    pub fn address(self, family: u8) -> IpAddr {
        match family {
            4 => self.v4.into(),
            _ => self.v6.into(),
        }
    }

    /// A port of it.
    pub fn at(self, family: u8, port: u16) -> SocketAddr {
        (self.address(family), port).into()
    }

    const fn new(v4: [u8; 4], subnet: u16, host: u16) -> Self {
        Self {
            v4: Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]),
            v6: Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, host),
        }
    }
}

/// The balancer's NIC towards clients.
pub const LB_CLIENT_MAC: Mac = [2, 0, 0, 0, 1, 1];
/// The balancer's NIC towards backends.
pub const LB_BACKEND_MAC: Mac = [2, 0, 0, 0, 1, 2];
/// The router that clients are behind.
pub const CLIENT_MAC: Mac = [2, 0, 0, 0, 0, 1];

/// The first client.
pub const CLIENT: Host = client(1);
/// The first VIP.
pub const VIP: Host = vip(1);
/// The first source address of `full-nat`.
pub const SOURCE: Host = source(0);
/// A backend behind a router that is the first backend.
pub const ROUTED: Host = Host::new([172, 17, 0, 1], 0xe, 1);
/// A backend at a NIC that Weir is not given.
pub const OUTSIDE: Host = Host::new([172, 18, 0, 1], 0xf, 1);

/// An address that the balancer's kernel says is unreachable.
pub const UNREACHABLE: Host = Host::new([100, 64, 0, 1], 0x99, 1);
/// An address that the balancer has no route to.
pub const NOWHERE: Host = Host::new([100, 65, 0, 1], 0x98, 1);

/// A client.
pub const fn client(number: u8) -> Host {
    Host::new([10, 0, 0, number], 0xc, number as u16)
}

/// A VIP.
pub const fn vip(number: u8) -> Host {
    Host::new([203, 0, 113, number], 0xa, number as u16)
}

/// A source address of `full-nat`.
pub const fn source(number: u8) -> Host {
    Host::new([192, 0, 2, number], 0xd, number as u16)
}

/// A backend; the first four are known to the balancer's kernel as neighbours.
pub const fn backend(number: u8) -> Host {
    Host::new([172, 16, 0, number], 0xb, number as u16)
}

impl Host {
    /// The Ethernet address of a [`backend`].
    pub const fn mac(self) -> Mac {
        [2, 0, 0, 0, 2, self.v4.octets()[3]]
    }
}
