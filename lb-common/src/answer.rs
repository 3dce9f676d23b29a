//! Telling a sender that its packet goes nowhere: a TCP RST (RFC 9293, section 3.10.7.1), or
//! ICMP's port unreachable for UDP (RFC 792, RFC 4443), made of the packet itself and sent
//! back the way it came.

use crate::{
    abi::IPV4,
    checksum::Sum,
    frame::Frame,
    packet::{ICMP, ICMPV6, Packet, Parsed, TCP, parse, tcp_flags},
    tables::Tables,
};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;

/// TTL or hop limit of what is sent.
const TTL: u8 = 64;

/// Makes the frame the answer to itself; it is to go out where it came in. False: there is
/// none to be sent, and the frame may be half changed.
#[inline(always)]
pub fn answer<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> bool {
    let Parsed::Packet(packet) = parse(frame) else {
        return false;
    };
    let answered = match packet.protocol {
        TCP => reset(frame, &packet),
        _ if tables.may_send_icmp() => unreachable(frame, &packet),
        _ => None,
    };
    answered.is_some()
}

/// Turns a segment into the RST that refuses it.
#[inline(always)]
fn reset<F: Frame>(frame: &mut F, packet: &Packet) -> Option<()> {
    let tcp = frame.window::<TCP_HEADER>(packet.l4)?;
    let sequence = u32::from_be(tcp.get::<u32, 4>());
    let acknowledged = tcp.get::<u32, 8>();
    let header = u32::from(tcp.get::<u8, 12>() >> 4) * 4;
    if packet.tcp_flags & tcp_flags::RST != 0 {
        return None;
    }
    let (sequence, acknowledgement, flags) = match packet.tcp_flags & tcp_flags::ACK {
        0 => {
            let payload = (l4_length(frame, packet)? as u32).wrapping_sub(header);
            let opens = u32::from(packet.tcp_flags & tcp_flags::SYN != 0);
            let closes = u32::from(packet.tcp_flags & tcp_flags::FIN != 0);
            let next = sequence.wrapping_add(payload).wrapping_add(opens + closes);
            (0, next.to_be(), tcp_flags::RST | tcp_flags::ACK)
        }
        _ => (acknowledged, 0, tcp_flags::RST),
    };
    turn_round(frame)?;
    let l4 = write_ip(frame, packet, packet.l3, packet.protocol, TCP_HEADER as u16)?;
    let mut tcp = frame.window_mut::<TCP_HEADER>(l4)?;
    let ports = packet.ports.rotate_left(16);
    // Data offset of five words, the flags, and no window.
    let control = u32::from_be_bytes([5 << 4, flags, 0, 0]).to_be();
    let sum = pseudo_header(packet, packet.protocol, TCP_HEADER as u16)
        .word32(ports)
        .word32(sequence)
        .word32(acknowledgement)
        .word32(control);
    tcp.set::<u32, 0>(ports);
    tcp.set::<u32, 4>(sequence);
    tcp.set::<u32, 8>(acknowledgement);
    tcp.set::<u32, 12>(control);
    tcp.set::<u16, 16>(sum.checksum());
    tcp.set::<u16, 18>(0);
    frame.truncate(l4 + TCP_HEADER);
    Some(())
}

/// Turns a datagram into the ICMP error that quotes its headers.
#[inline(always)]
fn unreachable<F: Frame>(frame: &mut F, packet: &Packet) -> Option<()> {
    // Options would be quoted too; who sends them to a dead service can do without an answer.
    let header = match packet.family {
        IPV4 => IPV4_HEADER,
        _ => IPV6_HEADER,
    };
    if packet.l4 != packet.l3 + header {
        return None;
    }
    let ethernet = frame.window::<14>(0)?;
    let (macs, more, last) = (
        ethernet.get::<u64, 0>(),
        ethernet.get::<u32, 8>(),
        ethernet.get::<u16, 12>(),
    );
    let tag = match packet.l3 {
        14 => 0,
        _ => frame.window::<4>(14)?.get::<u32, 0>(),
    };
    if !frame.grow_front(header + ICMP_HEADER) {
        return None;
    }
    let mut ethernet = frame.window_mut::<14>(0)?;
    ethernet.set::<u64, 0>(macs);
    ethernet.set::<u32, 8>(more);
    ethernet.set::<u16, 12>(last);
    if packet.l3 != 14 {
        frame.window_mut::<4>(14)?.set::<u32, 0>(tag);
    }
    turn_round(frame)?;
    let quoted = packet.l3 + header + ICMP_HEADER;
    let (protocol, kind) = match packet.family {
        IPV4 => (ICMP, u16::from_ne_bytes([3, 3])),
        _ => (ICMPV6, u16::from_ne_bytes([1, 4])),
    };
    let length = (ICMP_HEADER + header + UDP_HEADER) as u16;
    let sum = match packet.family {
        IPV4 => frame
            .window::<{ IPV4_HEADER + UDP_HEADER }>(quoted)?
            .fold_words(Sum::NONE, Sum::word32),
        _ => frame
            .window::<{ IPV6_HEADER + UDP_HEADER }>(quoted)?
            .fold_words(pseudo_header(packet, protocol, length), Sum::word32),
    };
    let l4 = write_ip(frame, packet, packet.l3, protocol, length)?;
    let mut icmp = frame.window_mut::<ICMP_HEADER>(l4)?;
    icmp.set::<u16, 0>(kind);
    icmp.set::<u16, 2>(sum.word16(kind).checksum());
    icmp.set::<u32, 4>(0);
    frame.truncate(quoted + header + UDP_HEADER);
    Some(())
}

/// Bytes of the packet behind its IP header.
#[inline(always)]
fn l4_length<F: Frame>(frame: &F, packet: &Packet) -> Option<usize> {
    let ip = frame.window::<IPV4_HEADER>(packet.l3)?;
    Some(match packet.family {
        IPV4 => usize::from(u16::from_be(ip.get::<u16, 2>())) - (packet.l4 - packet.l3),
        _ => usize::from(u16::from_be(ip.get::<u16, 4>())),
    })
}

/// Swaps the MAC addresses.
#[inline(always)]
fn turn_round<F: Frame>(frame: &mut F) -> Option<()> {
    let mut ethernet = frame.window_mut::<12>(0)?;
    let (destination, rest) = (ethernet.get::<u32, 0>(), ethernet.get::<u16, 4>());
    let (source, tail) = (ethernet.get::<u32, 6>(), ethernet.get::<u16, 10>());
    ethernet.set::<u32, 0>(source);
    ethernet.set::<u16, 4>(tail);
    ethernet.set::<u32, 6>(destination);
    ethernet.set::<u16, 10>(rest);
    Some(())
}

/// Writes the header of a packet from the VIP to the client; returns where it ends.
#[inline(always)]
fn write_ip<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    l3: usize,
    protocol: u8,
    length: u16,
) -> Option<usize> {
    if packet.family != IPV4 {
        let mut ip = frame.window_mut::<IPV6_HEADER>(l3)?;
        ip.set::<u32, 0>((6u32 << 28).to_be());
        ip.set::<u16, 4>(length.to_be());
        ip.set::<u8, 6>(protocol);
        ip.set::<u8, 7>(TTL);
        ip.set::<u64, 8>(packet.destination[0]);
        ip.set::<u64, 16>(packet.destination[1]);
        ip.set::<u64, 24>(packet.source[0]);
        ip.set::<u64, 32>(packet.source[1]);
        return Some(l3 + IPV6_HEADER);
    }
    let total = (length + IPV4_HEADER as u16).to_be();
    let first = u16::from_ne_bytes([0x45, 0]);
    // No identification, and "don't fragment".
    let fragment = u16::from_ne_bytes([0x40, 0]);
    let life = u16::from_ne_bytes([TTL, protocol]);
    let (source, destination) = (packet.destination[0] as u32, packet.source[0] as u32);
    let sum = Sum::NONE
        .word16(first)
        .word16(total)
        .word16(fragment)
        .word16(life)
        .word32(source)
        .word32(destination);
    let mut ip = frame.window_mut::<IPV4_HEADER>(l3)?;
    ip.set::<u16, 0>(first);
    ip.set::<u16, 2>(total);
    ip.set::<u16, 4>(0);
    ip.set::<u16, 6>(fragment);
    ip.set::<u16, 8>(life);
    ip.set::<u16, 10>(sum.checksum());
    ip.set::<u32, 12>(source);
    ip.set::<u32, 16>(destination);
    Some(l3 + IPV4_HEADER)
}

/// What a checksum above IP begins with; the order of the addresses does not matter to it.
#[inline(always)]
fn pseudo_header(packet: &Packet, protocol: u8, length: u16) -> Sum {
    Sum::NONE
        .word64(packet.source[0])
        .word64(packet.source[1])
        .word64(packet.destination[0])
        .word64(packet.destination[1])
        .word16(u16::from(protocol).to_be())
        .word16(length.to_be())
}
