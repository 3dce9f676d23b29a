//! Packets of many flows, as the feeding program makes them.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use lb_common::abi::bench::{Feed, TEMPLATE};

/// Flags of a TCP header.
#[derive(Clone, Copy)]
pub(crate) enum Flags {
    Syn,
    Ack,
}

/// An end of a packet.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Source = 0,
    Destination = 1,
}

/// A packet's ends, each an address and a port.
pub(crate) type Ends = ((IpAddr, u16), (IpAddr, u16));

/// Packets of so many flows, a power of two, and their length. From flow to flow the port of one
/// end grows, through `1 << low_bits` values, and then the address of one end.
pub(crate) fn feed(
    ends: Ends,
    flags: Flags,
    (address_of, port_of): (End, End),
    flows: u32,
    low_bits: u32,
) -> (Feed, usize) {
    let (template, length) = packet(ends, flags);
    let either = [ends.0, ends.1];
    let (address, (_, port)) = (either[address_of as usize].0, either[port_of as usize]);
    // Where the last four bytes of the source's are, how far it is to the destination's, and
    // where the ports are.
    let (address_at, bytes, ports_at) = match address {
        IpAddr::V4(_) => (26, 4, 34),
        IpAddr::V6(_) => (34, 16, 54),
    };
    let feed = Feed {
        template,
        mask: flows - 1,
        address: last_word(address),
        address_at: address_at + address_of as u32 * bytes,
        port_at: ports_at + port_of as u32 * 2,
        low_bits,
        low_mask: (1 << low_bits) - 1,
        high_step: 1,
        low_step: 0,
        port: port.into(),
        port_from_high: 0,
        target: 0,
        reserved: 0,
    };
    (feed, length)
}

fn last_word(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => u128::from(address) as u32,
    }
}

/// A packet, and the template of its first bytes: behind a shorter packet's end there is
/// padding.
fn packet(((source, from), (destination, to)): Ends, flags: Flags) -> ([u8; TEMPLATE], usize) {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]);
    let ip = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ethernet.ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ethernet.ipv6(source.octets(), destination.octets(), 64)
        }
        _ => unreachable!("a packet has one family"),
    };
    let tcp = ip.tcp(from, to, 1, 1000);
    let tcp = match flags {
        Flags::Syn => tcp.syn(),
        Flags::Ack => tcp.ack(1),
    };
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    tcp.write(&mut bytes, &[0; 32]).unwrap_or_default();
    let mut template = [0; TEMPLATE];
    template.copy_from_slice(&bytes[..TEMPLATE]);
    (template, bytes.len())
}
