//! Addresses and keys in the data path's layout.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::{
    abi::{Address, FlowKey, IPV4, IPV6, ServiceKey},
    packet::{TCP, UDP},
};

use crate::desired::Protocol;

/// An address as the data path holds it, and its family.
pub(crate) fn to_abi(address: IpAddr) -> (Address, u8) {
    let (bytes, family) = match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            (bytes, IPV4)
        }
        IpAddr::V6(address) => (address.octets(), IPV6),
    };
    let whole = u128::from_ne_bytes(bytes);
    let words = match cfg!(target_endian = "little") {
        true => [whole as u64, (whole >> 64) as u64],
        false => [(whole >> 64) as u64, whole as u64],
    };
    (words, family)
}

/// An endpoint from the data path's layout; `port` in network order.
pub(crate) fn endpoint(address: Address, family: u8, port: u16) -> SocketAddr {
    SocketAddr::new(from_abi(address, family), u16::from_be(port))
}

/// The reverse of [`to_abi`].
pub(crate) fn from_abi(address: Address, family: u8) -> IpAddr {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&address[1].to_ne_bytes());
    match family {
        IPV4 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        _ => IpAddr::V6(Ipv6Addr::from(bytes)),
    }
}

/// The IP protocol number.
pub(crate) fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

/// The key of an endpoint; `port` in host order.
pub(crate) fn service_key(address: IpAddr, port: u16, protocol: Protocol) -> ServiceKey {
    endpoint_key(SocketAddr::new(address, port), protocol_number(protocol))
}

/// The same; `protocol` is IP's number.
pub(crate) fn endpoint_key(at: SocketAddr, protocol: u8) -> ServiceKey {
    let (address, family) = to_abi(at.ip());
    ServiceKey {
        address,
        port: at.port().to_be(),
        protocol,
        family,
        reserved: 0,
    }
}

/// The key of a packet; `protocol` is IP's number.
pub(crate) fn flow_key(from: SocketAddr, to: SocketAddr, protocol: u8) -> FlowKey {
    let (source, family) = to_abi(from.ip());
    let (destination, _) = to_abi(to.ip());
    FlowKey {
        source,
        destination,
        source_port: from.port().to_be(),
        destination_port: to.port().to_be(),
        protocol,
        family,
        reserved: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "255.0.0.7"] {
            let address: IpAddr = text.parse().expect("a literal");
            let (words, family) = to_abi(address);
            assert_eq!(from_abi(words, family), address);
        }
    }

    #[test]
    fn ipv4_bytes_come_first_in_memory() {
        let (words, _) = to_abi("192.0.2.1".parse().expect("a literal"));
        assert_eq!(words[0].to_ne_bytes(), [192, 0, 2, 1, 0, 0, 0, 0]);
        assert_eq!(words[1], 0);
    }
}
