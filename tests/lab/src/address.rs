//! Who has which address. All are from ranges that are set aside for tests and examples.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The IPv4 address.
    pub v4: Ipv4Addr,
    /// The IPv6 address.
    pub v6: Ipv6Addr,
}

impl Pair {
    /// Both, IPv4 first.
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// Host `host` of subnet `subnet`: a /24 of 198.18.0.0/16 and a /64 of 2001:db8::/48.
    pub(crate) const fn new(subnet: u8, host: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(198, 18, subnet, host),
            v6: Ipv6Addr::new(0x2001, 0xdb8, 0, subnet as u16, 0, 0, 0, host as u16),
        }
    }

    /// VIP `number`, which is in no subnet.
    pub(crate) const fn vip(number: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(198, 19, 0, number),
            v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0xffff, 0, 0, 0, number as u16),
        }
    }
}

/// The client's subnet.
pub(crate) const CLIENT_SUBNET: u8 = 0;
/// The balancer's host number in every subnet.
pub(crate) const LB: u8 = 1;
/// The router's host number on a segment.
pub(crate) const ROUTER: u8 = LAST_HOST - 3;
/// The last host number in a subnet, above those of backends.
pub(crate) const LAST_HOST: u8 = 254;
