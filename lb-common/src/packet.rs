//! What the pipeline needs to know of a packet, read once.

use core::mem::offset_of;

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

use crate::{
    abi::{Address, FlowKey, IPV4, IPV6, ServiceKey},
    frame::Frame,
    reason::Reason,
};

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

const ETHERTYPE_IPV4: u16 = 0x0800u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86ddu16.to_be();
/// A customer VLAN tag (IEEE 802.1Q).
pub(crate) const ETHERTYPE_VLAN: u16 = 0x8100u16.to_be();
/// Bytes that a VLAN tag adds.
pub(crate) const VLAN_TAG: usize = 4;
/// More fragments, or an offset: RFC 791's flags and fragment offset, network order.
const FRAGMENTED: u16 = 0x3fffu16.to_be();

/// Where a TCP header has its own length in words, in the upper half of a byte.
const TCP_DATA_OFFSET: usize = 12;

/// Where a TCP header has its flags: behind ports, sequence numbers and the data offset.
const TCP_FLAGS: usize = 13;

/// Bits of a TCP header's flags.
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Aborts a connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
}

/// A TCP or UDP packet that is neither fragmented nor cut short. Addresses and ports in
/// network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the TCP or UDP header.
    pub l4: usize,
    /// VLAN id, host order; 0: untagged.
    pub vlan: u16,
    /// [`IPV4`] or [`IPV6`].
    pub family: u8,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// [`tcp_flags`]; 0 for UDP.
    pub tcp_flags: u8,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Both ports as they stand in the packet: source in the first two bytes.
    pub ports: u32,
}

/// What a frame is to the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A packet that a service may be found for.
    Packet(Packet),
    /// IP, but not a packet that can be balanced, for this reason: dropped where its
    /// destination is a VIP, else the kernel's. Ports and flags may be zero. A packet like the
    /// other, so that the compiler keeps each of its words in one piece: a word that is written
    /// in parts and read as a whole has the CPU wait.
    Odd(Packet, Reason),
    /// Neither TCP nor UDP over IP: the kernel's.
    Other,
}

/// Reads a frame's headers. Never reads outside of it, whatever it holds.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F) -> Parsed {
    let Some(ethernet) = frame.window::<{ EthHdr::LEN }>(0) else {
        return Parsed::Other;
    };
    let mut ethertype = ethernet.get::<u16, { offset_of!(EthHdr, ether_type) }>();
    let mut l3 = EthHdr::LEN;
    let mut vlan = 0;
    if ethertype == ETHERTYPE_VLAN {
        let Some(tag) = frame.window::<VLAN_TAG>(EthHdr::LEN) else {
            return Parsed::Other;
        };
        vlan = u16::from_be(tag.get::<u16, 0>()) & 0x0fff;
        ethertype = tag.get::<u16, 2>();
        l3 += VLAN_TAG;
    }
    match ethertype {
        ETHERTYPE_IPV4 => parse_ipv4(frame, l3, vlan),
        ETHERTYPE_IPV6 => parse_ipv6(frame, l3, vlan),
        _ => Parsed::Other,
    }
}

#[inline(always)]
fn parse_ipv4<F: Frame>(frame: &F, l3: usize, vlan: u16) -> Parsed {
    let Some(ip) = frame.window::<{ Ipv4Hdr::LEN }>(l3) else {
        return Parsed::Other;
    };
    let vihl = ip.get::<u8, { offset_of!(Ipv4Hdr, vihl) }>();
    let header = ((vihl & 0x0f) as usize) << 2;
    if vihl >> 4 != 4 || header < Ipv4Hdr::LEN {
        return Parsed::Other;
    }
    let source = ipv4_address(ip.get::<u32, { offset_of!(Ipv4Hdr, src_addr) }>());
    let destination = ipv4_address(ip.get::<u32, { offset_of!(Ipv4Hdr, dst_addr) }>());
    let total = u16::from_be(ip.get::<u16, { offset_of!(Ipv4Hdr, tot_len) }>()) as usize;
    let protocol = ip.get::<u8, { offset_of!(Ipv4Hdr, proto) }>();
    if protocol != TCP && protocol != UDP {
        return Parsed::Other;
    }
    let packet = Packet {
        l3,
        l4: l3 + header,
        vlan,
        family: IPV4,
        protocol,
        ttl: ip.get::<u8, { offset_of!(Ipv4Hdr, ttl) }>(),
        tcp_flags: 0,
        source,
        destination,
        ports: 0,
    };
    if ip.get::<u16, { offset_of!(Ipv4Hdr, frags) }>() & FRAGMENTED != 0 {
        return Parsed::Odd(packet, Reason::Fragment);
    }
    parse_l4(frame, packet, l3 + total)
}

#[inline(always)]
fn parse_ipv6<F: Frame>(frame: &F, l3: usize, vlan: u16) -> Parsed {
    const SOURCE: usize = offset_of!(Ipv6Hdr, src_addr);
    const DESTINATION: usize = offset_of!(Ipv6Hdr, dst_addr);
    let Some(ip) = frame.window::<{ Ipv6Hdr::LEN }>(l3) else {
        return Parsed::Other;
    };
    if ip.get::<u8, 0>() >> 4 != 6 {
        return Parsed::Other;
    }
    let source = [ip.get::<u64, { SOURCE }>(), ip.get::<u64, { SOURCE + 8 }>()];
    let destination = [
        ip.get::<u64, { DESTINATION }>(),
        ip.get::<u64, { DESTINATION + 8 }>(),
    ];
    let payload = u16::from_be(ip.get::<u16, { offset_of!(Ipv6Hdr, payload_len) }>()) as usize;
    let protocol = ip.get::<u8, { offset_of!(Ipv6Hdr, next_hdr) }>();
    let packet = Packet {
        l3,
        l4: l3 + Ipv6Hdr::LEN,
        vlan,
        family: IPV6,
        protocol,
        ttl: ip.get::<u8, { offset_of!(Ipv6Hdr, hop_limit) }>(),
        tcp_flags: 0,
        source,
        destination,
        ports: 0,
    };
    match protocol {
        TCP | UDP => parse_l4(frame, packet, l3 + Ipv6Hdr::LEN + payload),
        44 => Parsed::Odd(packet, Reason::Fragment),
        // Hop-by-hop, routing, authentication, destination options, mobility (RFC 7045).
        0 | 43 | 51 | 60 | 135 => Parsed::Odd(packet, Reason::ExtensionHeader),
        _ => Parsed::Other,
    }
}

/// `end`: where the IP header says that the packet ends.
#[inline(always)]
fn parse_l4<F: Frame>(frame: &F, mut packet: Packet, end: usize) -> Parsed {
    if packet.protocol == TCP {
        let Some(tcp) = frame.window::<{ TcpHdr::LEN }>(packet.l4) else {
            return Parsed::Odd(packet, Reason::Malformed);
        };
        packet.ports = tcp.get::<u32, 0>();
        packet.tcp_flags = tcp.get::<u8, TCP_FLAGS>();
        let header = ((tcp.get::<u8, TCP_DATA_OFFSET>() & 0xf0) >> 2) as usize;
        if header < TcpHdr::LEN || end < packet.l4 + header {
            return Parsed::Odd(packet, Reason::Malformed);
        }
    } else {
        let Some(udp) = frame.window::<{ UdpHdr::LEN }>(packet.l4) else {
            return Parsed::Odd(packet, Reason::Malformed);
        };
        packet.ports = udp.get::<u32, 0>();
        let length = u16::from_be(udp.get::<u16, { offset_of!(UdpHdr, len) }>()) as usize;
        if length < UdpHdr::LEN || end < packet.l4 + length {
            return Parsed::Odd(packet, Reason::Malformed);
        }
    }
    if end > frame.length() {
        return Parsed::Odd(packet, Reason::Malformed);
    }
    Parsed::Packet(packet)
}

/// An IPv4 address as it was read from a packet. The low half of a word comes first in
/// memory on the little-endian machines that BPF objects are built for.
#[inline(always)]
pub const fn ipv4_address(raw: u32) -> Address {
    [(raw as u64).to_le(), 0]
}

impl Packet {
    /// Whether it opens a TCP connection: a SYN that acknowledges nothing.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        const OPENING: u8 = tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST | tcp_flags::FIN;
        self.tcp_flags & OPENING == tcp_flags::SYN
    }

    /// Whether its sender ends its TCP connection, or its side of it: a FIN or RST.
    #[inline(always)]
    pub fn ends(&self) -> bool {
        self.tcp_flags & (tcp_flags::FIN | tcp_flags::RST) != 0
    }

    /// Source port, network order.
    #[inline(always)]
    pub fn source_port(&self) -> u16 {
        let [a, b, _, _] = self.ports.to_ne_bytes();
        u16::from_ne_bytes([a, b])
    }

    /// Destination port, network order.
    #[inline(always)]
    pub fn destination_port(&self) -> u16 {
        let [_, _, a, b] = self.ports.to_ne_bytes();
        u16::from_ne_bytes([a, b])
    }

    /// The key of the service that it may be for.
    #[inline(always)]
    pub fn service_key(&self) -> ServiceKey {
        ServiceKey {
            address: self.destination,
            port: self.destination_port(),
            protocol: self.protocol,
            family: self.family,
            reserved: 0,
        }
    }

    /// The key of the address that it is for.
    #[inline(always)]
    pub fn address_key(&self) -> ServiceKey {
        ServiceKey::any_port(self.family, self.destination)
    }

    /// The key of the `nat` backend that it may be from.
    #[inline(always)]
    pub fn return_key(&self) -> ServiceKey {
        ServiceKey {
            address: self.source,
            port: self.source_port(),
            protocol: self.protocol,
            family: self.family,
            reserved: 0,
        }
    }

    /// Its flow, in its own direction.
    #[inline(always)]
    pub fn flow_key(&self) -> FlowKey {
        FlowKey {
            source: self.source,
            destination: self.destination,
            source_port: self.source_port(),
            destination_port: self.destination_port(),
            protocol: self.protocol,
            family: self.family,
            reserved: 0,
        }
    }
}

impl ServiceKey {
    /// The key that says "some service has this address".
    #[inline(always)]
    pub const fn any_port(family: u8, address: Address) -> Self {
        Self {
            address,
            port: 0,
            protocol: 0,
            family,
            reserved: 0,
        }
    }
}
