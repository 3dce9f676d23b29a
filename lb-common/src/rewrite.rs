//! Changing a packet's headers, and what follows for its checksums.

use core::mem::offset_of;

use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

use crate::{
    abi::{Address, IPV4, NextHop},
    checksum::Delta,
    frame::Frame,
    packet::{ETHERTYPE_VLAN, Packet, TCP, VLAN_TAG},
    reason::Reason,
};

/// An address and a port, network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub address: Address,
    /// Port.
    pub port: u16,
}

/// Gives the packet these endpoints (`None`: as it is), counts its TTL down by one, since it
/// is being routed, and updates its checksums. The caller has seen that the TTL is above 1.
///
/// # Errors
///
/// [`Reason::Malformed`] where the frame is not as long as when it was parsed; it may then
/// be half changed.
#[inline(always)]
pub fn translate<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    source: Option<Endpoint>,
    destination: Option<Endpoint>,
) -> Result<(), Reason> {
    let mut addresses = Delta::NONE;
    let mut ports = Delta::NONE;
    if let Some(new) = source {
        addresses = address_delta(addresses, packet.family, &packet.source, &new.address);
        ports = ports.word16(packet.source_port(), new.port);
    }
    if let Some(new) = destination {
        addresses = address_delta(addresses, packet.family, &packet.destination, &new.address);
        ports = ports.word16(packet.destination_port(), new.port);
    }
    translate_ip(frame, packet, source, destination, (true, addresses))?;
    translate_l4(frame, packet, source, destination, addresses.and(ports))
}

/// Gives an IP header these addresses (`None`: as it is), counts its TTL, which is above 0, down by
/// one where it is `routed`, and gives IPv4's its checksum. `addresses`: what of the change is the
/// addresses'.
///
/// # Errors
///
/// As [`translate`].
#[inline(always)]
pub(crate) fn translate_ip<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    source: Option<Endpoint>,
    destination: Option<Endpoint>,
    (routed, addresses): (bool, Delta),
) -> Result<(), Reason> {
    if packet.family == IPV4 {
        translate_ipv4(frame, packet, source, destination, (routed, addresses))
    } else {
        translate_ipv6(frame, packet, source, destination, routed)
    }
}

/// And an address of a family was `old` and is `new`.
#[inline(always)]
pub(crate) fn address_delta(delta: Delta, family: u8, old: &Address, new: &Address) -> Delta {
    if family == IPV4 {
        return delta.low32(old[0], new[0]);
    }
    delta.word64(old[0], new[0]).word64(old[1], new[1])
}

#[inline(always)]
fn translate_ipv4<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    source: Option<Endpoint>,
    destination: Option<Endpoint>,
    (routed, addresses): (bool, Delta),
) -> Result<(), Reason> {
    let mut ip = frame
        .window_mut::<{ Ipv4Hdr::LEN }>(packet.l3)
        .ok_or(Reason::Malformed)?;
    if let Some(new) = source {
        ip.set::<u32, { offset_of!(Ipv4Hdr, src_addr) }>(new.address[0] as u32);
    }
    if let Some(new) = destination {
        ip.set::<u32, { offset_of!(Ipv4Hdr, dst_addr) }>(new.address[0] as u32);
    }
    let mut delta = addresses;
    if routed {
        ip.set::<u8, { offset_of!(Ipv4Hdr, ttl) }>(packet.ttl.wrapping_sub(1));
        // Whatever it was, and whatever the protocol beside it (RFC 1141).
        delta = delta.word16(u16::from_ne_bytes([1, 0]), 0);
    }
    let check = ip.get::<u16, { offset_of!(Ipv4Hdr, check) }>();
    ip.set::<u16, { offset_of!(Ipv4Hdr, check) }>(delta.apply(check));
    Ok(())
}

#[inline(always)]
fn translate_ipv6<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    source: Option<Endpoint>,
    destination: Option<Endpoint>,
    routed: bool,
) -> Result<(), Reason> {
    const SOURCE: usize = offset_of!(Ipv6Hdr, src_addr);
    const DESTINATION: usize = offset_of!(Ipv6Hdr, dst_addr);
    let mut ip = frame
        .window_mut::<{ Ipv6Hdr::LEN }>(packet.l3)
        .ok_or(Reason::Malformed)?;
    if let Some(new) = source {
        ip.set::<u64, { SOURCE }>(new.address[0]);
        ip.set::<u64, { SOURCE + 8 }>(new.address[1]);
    }
    if let Some(new) = destination {
        ip.set::<u64, { DESTINATION }>(new.address[0]);
        ip.set::<u64, { DESTINATION + 8 }>(new.address[1]);
    }
    if routed {
        ip.set::<u8, { offset_of!(Ipv6Hdr, hop_limit) }>(packet.ttl.wrapping_sub(1));
    }
    Ok(())
}

#[inline(always)]
fn translate_l4<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    source: Option<Endpoint>,
    destination: Option<Endpoint>,
    delta: Delta,
) -> Result<(), Reason> {
    if packet.protocol == TCP {
        let mut tcp = frame
            .window_mut::<{ TcpHdr::LEN }>(packet.l4)
            .ok_or(Reason::Malformed)?;
        if let Some(new) = source {
            tcp.set::<u16, { offset_of!(TcpHdr, source) }>(new.port);
        }
        if let Some(new) = destination {
            tcp.set::<u16, { offset_of!(TcpHdr, dest) }>(new.port);
        }
        let check = tcp.get::<u16, { offset_of!(TcpHdr, check) }>();
        tcp.set::<u16, { offset_of!(TcpHdr, check) }>(delta.apply(check));
    } else {
        let mut udp = frame
            .window_mut::<{ UdpHdr::LEN }>(packet.l4)
            .ok_or(Reason::Malformed)?;
        if let Some(new) = source {
            udp.set::<u16, { offset_of!(UdpHdr, src) }>(new.port);
        }
        if let Some(new) = destination {
            udp.set::<u16, { offset_of!(UdpHdr, dst) }>(new.port);
        }
        let check = udp.get::<u16, { offset_of!(UdpHdr, check) }>();
        // Zero: the sender computed none (RFC 768); it is none of ours to make one up.
        if check != 0 {
            udp.set::<u16, { offset_of!(UdpHdr, check) }>(delta.apply_udp(check));
        }
    }
    Ok(())
}

/// Gives the frame the next hop's addresses and VLAN tag. The packet's offsets no longer
/// hold after this.
///
/// # Errors
///
/// [`Reason::Resize`] where there is no room for a tag, [`Reason::Malformed`] as above.
#[inline(always)]
pub fn readdress<F: Frame>(frame: &mut F, packet: &Packet, hop: &NextHop) -> Result<(), Reason> {
    let vlan = (hop.destination >> 48) as u16;
    if vlan != packet.vlan {
        retag(frame, packet, vlan)?;
    }
    let mut ethernet = frame.window_mut::<12>(0).ok_or(Reason::Malformed)?;
    ethernet.set::<u32, 0>((hop.destination as u32).to_le());
    ethernet.set::<u16, 4>(((hop.destination >> 32) as u16).to_le());
    ethernet.set::<u32, 6>((hop.source as u32).to_le());
    ethernet.set::<u16, 10>(((hop.source >> 32) as u16).to_le());
    Ok(())
}

/// Adds, changes or removes the tag; what stands in the first 12 bytes is written after.
#[inline(always)]
fn retag<F: Frame>(frame: &mut F, packet: &Packet, vlan: u16) -> Result<(), Reason> {
    if vlan == 0 {
        return match frame.shrink_front(VLAN_TAG) {
            true => Ok(()),
            false => Err(Reason::Resize),
        };
    }
    if packet.vlan == 0 && !frame.grow_front(VLAN_TAG) {
        return Err(Reason::Resize);
    }
    let mut tag = frame.window_mut::<4>(12).ok_or(Reason::Malformed)?;
    tag.set::<u16, 0>(ETHERTYPE_VLAN);
    tag.set::<u16, 2>(vlan.to_be());
    Ok(())
}
