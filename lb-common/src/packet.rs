//! What the pipeline needs to know of a packet, read once.

use core::{hint::black_box, mem::offset_of};

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
/// IP protocol number of ICMP for IPv4.
pub const ICMP: u8 = 1;
/// IP protocol number of ICMP for IPv6.
pub const ICMPV6: u8 = 58;

const ETHERTYPE_IPV4: u16 = 0x0800u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86ddu16.to_be();
/// A customer VLAN tag (IEEE 802.1Q).
pub(crate) const ETHERTYPE_VLAN: u16 = 0x8100u16.to_be();
/// Bytes that a VLAN tag adds.
pub(crate) const VLAN_TAG: usize = 4;
/// More fragments, or an offset: RFC 791's flags and fragment offset, network order.
const FRAGMENTED: u16 = 0x3fffu16.to_be();
/// The offset alone: all but the first fragment have one.
const FRAGMENT_OFFSET: u16 = 0x1fffu16.to_be();

/// IPv6's next header number of a fragment header.
const FRAGMENT_HEADER: u8 = 44;
/// Bytes of it.
const FRAGMENT_HEADER_LENGTH: usize = 8;
/// Where it has the identification.
pub(crate) const FRAGMENT_ID: usize = 4;

/// What an ICMP error quotes at least of what is above IP (RFC 792): a UDP header, or a TCP
/// header's ports and sequence number.
pub(crate) const QUOTED: usize = 8;

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

/// A TCP or UDP packet that is neither fragmented nor cut short, or the IP header of another.
/// Addresses and ports in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the TCP or UDP header, or of what else is above IP.
    pub l4: usize,
    /// VLAN id, host order; 0: untagged.
    pub vlan: u16,
    /// [`IPV4`] or [`IPV6`].
    pub family: u8,
    /// [`TCP`] or [`UDP`]; of [`parse_icmp`]'s [`ICMP`] or [`ICMPV6`].
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// [`tcp_flags`]; 0 for all but TCP.
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
    /// ICMP, or a fragment of TCP or UDP, or IPv6's of anything: [`parse_icmp`],
    /// [`parse_fragment`] and [`parse_first`] read them.
    Aside,
    /// None of these: the kernel's.
    Other,
}

/// A fragment of a TCP or UDP packet, all of which is in the frame.
pub(crate) struct Fragment {
    /// Without ports and flags, which only the first has.
    pub(crate) packet: Packet,
    /// Where the IP header says that it ends.
    end: usize,
    /// As in [`crate::abi::FragmentKey`].
    pub(crate) id: u32,
    /// Where in the packet it belongs, in units of eight bytes.
    pub(crate) offset: u16,
}

/// What an Ethernet header and a VLAN tag say.
struct Link {
    ethertype: u16,
    vlan: u16,
    /// Where they end.
    l3: usize,
}

/// What an IP header says.
struct Header {
    /// Ports and flags are zero.
    packet: Packet,
    /// Where the packet ends.
    end: usize,
    /// IPv4: flags and fragment offset, network order.
    fragment: u16,
}

/// Reads a frame's headers. Never reads outside of it, whatever it holds.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F) -> Parsed {
    let Some(Link {
        ethertype,
        vlan,
        l3,
    }) = link_header(frame)
    else {
        return Parsed::Other;
    };
    match ethertype {
        ETHERTYPE_IPV4 => parse_ipv4(frame, l3, vlan),
        ETHERTYPE_IPV6 => parse_ipv6(frame, l3, vlan),
        _ => Parsed::Other,
    }
}

#[inline(always)]
fn link_header<F: Frame>(frame: &F) -> Option<Link> {
    let ethernet = frame.window::<{ EthHdr::LEN }>(0)?;
    let mut ethertype = ethernet.get::<u16, { offset_of!(EthHdr, ether_type) }>();
    let mut l3 = EthHdr::LEN;
    let mut vlan = 0;
    if ethertype == ETHERTYPE_VLAN {
        let tag = frame.window::<VLAN_TAG>(EthHdr::LEN)?;
        vlan = u16::from_be(tag.get::<u16, 0>()) & 0x0fff;
        ethertype = tag.get::<u16, 2>();
        l3 += VLAN_TAG;
    }
    Some(Link {
        ethertype,
        vlan,
        l3,
    })
}

#[inline(always)]
fn parse_ipv4<F: Frame>(frame: &F, l3: usize, vlan: u16) -> Parsed {
    let Some(ip) = ipv4_header(frame, l3, vlan) else {
        return Parsed::Other;
    };
    let Header {
        packet,
        end,
        fragment,
    } = ip;
    if packet.protocol != TCP && packet.protocol != UDP {
        return match packet.protocol {
            ICMP => Parsed::Aside,
            _ => Parsed::Other,
        };
    }
    if fragment & FRAGMENTED != 0 {
        return Parsed::Aside;
    }
    parse_l4(frame, packet, (end, true))
}

#[inline(always)]
fn ipv4_header<F: Frame>(frame: &F, l3: usize, vlan: u16) -> Option<Header> {
    let ip = frame.window::<{ Ipv4Hdr::LEN }>(l3)?;
    let vihl = ip.get::<u8, { offset_of!(Ipv4Hdr, vihl) }>();
    let header = ((vihl & 0x0f) as usize) << 2;
    if vihl >> 4 != 4 || header < Ipv4Hdr::LEN {
        return None;
    }
    let total = u16::from_be(ip.get::<u16, { offset_of!(Ipv4Hdr, tot_len) }>()) as usize;
    Some(Header {
        packet: Packet {
            l3,
            l4: l3 + header,
            vlan,
            family: IPV4,
            protocol: ip.get::<u8, { offset_of!(Ipv4Hdr, proto) }>(),
            ttl: ip.get::<u8, { offset_of!(Ipv4Hdr, ttl) }>(),
            tcp_flags: 0,
            source: ipv4_address(ip.get::<u32, { offset_of!(Ipv4Hdr, src_addr) }>()),
            destination: ipv4_address(ip.get::<u32, { offset_of!(Ipv4Hdr, dst_addr) }>()),
            ports: 0,
        },
        end: l3 + total,
        fragment: ip.get::<u16, { offset_of!(Ipv4Hdr, frags) }>(),
    })
}

#[inline(always)]
fn parse_ipv6<F: Frame>(frame: &F, l3: usize, vlan: u16) -> Parsed {
    let Some(ip) = ipv6_header(frame, l3, vlan) else {
        return Parsed::Other;
    };
    match ip.packet.protocol {
        TCP | UDP => parse_l4(frame, ip.packet, (ip.end, true)),
        ICMPV6 | FRAGMENT_HEADER => Parsed::Aside,
        // Hop-by-hop, routing, authentication, destination options, mobility (RFC 7045).
        0 | 43 | 51 | 60 | 135 => Parsed::Odd(ip.packet, Reason::ExtensionHeader),
        _ => Parsed::Other,
    }
}

#[inline(always)]
fn ipv6_header<F: Frame>(frame: &F, l3: usize, vlan: u16) -> Option<Header> {
    const SOURCE: usize = offset_of!(Ipv6Hdr, src_addr);
    const DESTINATION: usize = offset_of!(Ipv6Hdr, dst_addr);
    let ip = frame.window::<{ Ipv6Hdr::LEN }>(l3)?;
    if ip.get::<u8, 0>() >> 4 != 6 {
        return None;
    }
    let payload = u16::from_be(ip.get::<u16, { offset_of!(Ipv6Hdr, payload_len) }>()) as usize;
    Some(Header {
        packet: Packet {
            l3,
            l4: l3 + Ipv6Hdr::LEN,
            vlan,
            family: IPV6,
            protocol: ip.get::<u8, { offset_of!(Ipv6Hdr, next_hdr) }>(),
            ttl: ip.get::<u8, { offset_of!(Ipv6Hdr, hop_limit) }>(),
            tcp_flags: 0,
            source: [ip.get::<u64, { SOURCE }>(), ip.get::<u64, { SOURCE + 8 }>()],
            destination: [
                ip.get::<u64, { DESTINATION }>(),
                ip.get::<u64, { DESTINATION + 8 }>(),
            ],
            ports: 0,
        },
        end: l3 + Ipv6Hdr::LEN + payload,
        fragment: 0,
    })
}

/// The IP header of ICMP that is not fragmented, and where it says that the packet ends: not
/// behind the frame's end.
#[inline(always)]
pub(crate) fn parse_icmp<F: Frame>(frame: &F) -> Option<(Packet, usize)> {
    let link = link_header(frame)?;
    let (ip, protocol) = match link.ethertype {
        ETHERTYPE_IPV4 => (ipv4_header(frame, link.l3, link.vlan)?, ICMP),
        ETHERTYPE_IPV6 => (ipv6_header(frame, link.l3, link.vlan)?, ICMPV6),
        _ => return None,
    };
    // Else the compiler proves by it that what is quoted is there, and leaves out the comparisons
    // by which the verifier would know.
    let end = black_box(ip.end);
    let whole = ip.fragment & FRAGMENTED == 0 && end <= frame.length();
    (whole && ip.packet.protocol == protocol).then_some((ip.packet, ip.end))
}

/// Reads the headers of a fragment, but for what is above IP.
#[inline(always)]
pub(crate) fn parse_fragment<F: Frame>(frame: &F) -> Option<Fragment> {
    let link = link_header(frame)?;
    let fragment = match link.ethertype {
        ETHERTYPE_IPV4 => fragment_ipv4(frame, &link)?,
        ETHERTYPE_IPV6 => fragment_ipv6(frame, &link)?,
        _ => return None,
    };
    let known = matches!(fragment.packet.protocol, TCP | UDP);
    // As for ICMP.
    (known && black_box(fragment.end) <= frame.length()).then_some(fragment)
}

#[inline(always)]
fn fragment_ipv4<F: Frame>(frame: &F, link: &Link) -> Option<Fragment> {
    let ip = ipv4_header(frame, link.l3, link.vlan)?;
    let header = frame.window::<{ Ipv4Hdr::LEN }>(link.l3)?;
    let id = header.get::<u16, { offset_of!(Ipv4Hdr, id) }>();
    (ip.fragment & FRAGMENTED != 0).then_some(Fragment {
        packet: ip.packet,
        end: ip.end,
        id: id.into(),
        offset: u16::from_be(ip.fragment & FRAGMENT_OFFSET),
    })
}

#[inline(always)]
fn fragment_ipv6<F: Frame>(frame: &F, link: &Link) -> Option<Fragment> {
    let ip = ipv6_header(frame, link.l3, link.vlan)?;
    if ip.packet.protocol != FRAGMENT_HEADER {
        return None;
    }
    let header = frame.window::<FRAGMENT_HEADER_LENGTH>(ip.packet.l4)?;
    Some(Fragment {
        packet: Packet {
            l4: ip.packet.l4 + FRAGMENT_HEADER_LENGTH,
            protocol: header.get::<u8, 0>(),
            ..ip.packet
        },
        end: ip.end,
        id: header.get::<u32, FRAGMENT_ID>(),
        offset: u16::from_be(header.get::<u16, 2>()) >> 3,
    })
}

/// Reads a fragment that is the first of its packet as if it were all of it. [`Parsed::Other`]:
/// it is none.
#[inline(always)]
pub(crate) fn parse_first<F: Frame>(frame: &F) -> Parsed {
    match parse_fragment(frame) {
        Some(first) if first.offset == 0 => parse_l4(frame, first.packet, (first.end, false)),
        _ => Parsed::Other,
    }
}

/// Reads what another packet of a family quotes at `l3`: the IP header of a TCP or UDP packet
/// and, of what is above it, [`QUOTED`] bytes; no more need be there. None: it is no such packet,
/// has no ports, or reaches beyond the quoting packet, which ends at `end`.
#[inline(always)]
pub(crate) fn parse_quoted<F: Frame>(
    frame: &F,
    family: u8,
    l3: usize,
    end: usize,
) -> Option<Packet> {
    let ip = match family {
        IPV4 => ipv4_header(frame, l3, 0)?,
        _ => ipv6_header(frame, l3, 0)?,
    };
    let mut packet = ip.packet;
    let has_ports = ip.fragment & FRAGMENT_OFFSET == 0 && matches!(packet.protocol, TCP | UDP);
    if !has_ports || packet.l4 + QUOTED > end {
        return None;
    }
    packet.ports = frame.window::<QUOTED>(packet.l4)?.get::<u32, 0>();
    Some(packet)
}

/// `end`: where the IP header says that the packet ends; `whole`: it is no fragment.
#[inline(always)]
fn parse_l4<F: Frame>(frame: &F, mut packet: Packet, (end, whole): (usize, bool)) -> Parsed {
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
        let here = if whole { length } else { UdpHdr::LEN };
        if length < UdpHdr::LEN || end < packet.l4 + here {
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

    /// The same with source and destination exchanged: the way of its answers.
    #[inline(always)]
    pub(crate) fn turned(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            ports: self.ports.rotate_left(16),
            ..*self
        }
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
