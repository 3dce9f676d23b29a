//! What the kernel answers when asked for the way to an address.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use rtnetlink::packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia,
    },
};

use super::Why;

/// The way to an address, or why there is none.
pub(super) type Route = Result<Path, Why>;

/// The way to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) ifindex: u32,
    /// `None`: the address is on link. May be of the other IP version.
    pub(super) gateway: Option<IpAddr>,
    /// The route's own limit, in bytes.
    pub(super) mtu: Option<u32>,
    /// Whether the route adds a header (MPLS, SRv6 and the like).
    pub(super) encapsulated: bool,
}

/// The question to the kernel.
pub(super) fn question(address: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    (
        message.header.address_family,
        message.header.destination_prefix_length,
    ) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.flags = RouteFlags::LookupTable;
    message
        .attributes
        .push(RouteAttribute::Destination(address.into()));
    message
}

/// Reads the kernel's answer.
pub(super) fn answer(message: &RouteMessage) -> Route {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Err(Why::Local),
        RouteType::BlackHole => return Err(Why::Blackhole),
        RouteType::Unreachable => return Err(Why::Unreachable),
        RouteType::Prohibit => return Err(Why::Prohibited),
        _ => return Err(Why::NotUnicast),
    }
    let (mut ifindex, mut gateway, mut mtu, mut encapsulated) = (None, None, None, false);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(value) => ifindex = Some(*value),
            RouteAttribute::Gateway(value) => gateway = address(value),
            RouteAttribute::Via(RouteVia::Inet(value)) => gateway = Some(IpAddr::V4(*value)),
            RouteAttribute::Via(RouteVia::Inet6(value)) => gateway = Some(IpAddr::V6(*value)),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(value) => Some(*value).filter(|mtu| *mtu > 0),
                    _ => None,
                });
            }
            RouteAttribute::EncapType(_) => encapsulated = true,
            _ => {}
        }
    }
    Ok(Path {
        ifindex: ifindex.ok_or_else(|| Why::NoRoute("it names no interface".into()))?,
        gateway,
        mtu,
        encapsulated,
    })
}

/// Reads the kernel's refusal. For IPv4 the type of a route that rejects is told by the error only.
pub(super) fn refusal(error: &io::Error) -> Why {
    match error.raw_os_error() {
        Some(libc::EINVAL) => Why::Blackhole,
        Some(libc::EHOSTUNREACH) => Why::Unreachable,
        Some(libc::EACCES) => Why::Prohibited,
        _ => Why::NoRoute(error.to_string()),
    }
}

/// The addresses whose way may change when this route comes or goes: those within its prefix.
pub(super) fn covered(message: &RouteMessage) -> RangeInclusive<IpAddr> {
    let destination = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(value) => address(value),
            _ => None,
        });
    let length = u32::from(message.header.destination_prefix_length);
    if message.header.address_family == AddressFamily::Inet6 {
        let network = match destination {
            Some(IpAddr::V6(address)) => address.to_bits(),
            _ => 0,
        };
        let hosts = u128::MAX.checked_shr(length).unwrap_or(0);
        let address = |bits| IpAddr::V6(Ipv6Addr::from_bits(bits));
        address(network & !hosts)..=address(network | hosts)
    } else {
        let network = match destination {
            Some(IpAddr::V4(address)) => address.to_bits(),
            _ => 0,
        };
        let hosts = u32::MAX.checked_shr(length).unwrap_or(0);
        let address = |bits| IpAddr::V4(Ipv4Addr::from_bits(bits));
        address(network & !hosts)..=address(network | hosts)
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
