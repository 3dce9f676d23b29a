//! Packets, in fragments.

use etherparse::Ipv4Header;

use super::packet::Packet;

/// Where an IPv6 header ends that has no extensions.
const IPV6_HEADER: usize = 40;

/// The frames of a packet's fragments, which are told from others by `id`. They begin at the start
/// and at these offsets behind the IP header, multiples of eight.
///
/// # Panics
///
/// The offsets are not in the packet, in their order.
pub fn fragments(packet: &Packet, id: u32, offsets: &[usize]) -> Vec<Vec<u8>> {
    let whole = packet.bytes();
    let (headers, payload) = whole.split_at(packet.l4());
    let starts = [&[0], offsets].concat();
    let ends = [offsets, &[payload.len()]].concat();
    let parts = starts.iter().zip(&ends);
    parts
        .map(|(&start, &end)| {
            let (link, ip) = headers.split_at(packet.l3());
            let more = end < payload.len();
            let ip = match packet.family() {
                4 => ipv4(ip, id as u16, (start, end, more)),
                _ => ipv6(ip, id, (start, end, more)),
            };
            [link, &ip, &payload[start..end]].concat()
        })
        .collect()
}

/// What tells a frame's fragment from those of other packets.
pub fn fragment_id(packet: &Packet, frame: &[u8]) -> u32 {
    match packet.family() {
        4 => u16::from_be_bytes([frame[packet.l3() + 4], frame[packet.l3() + 5]]).into(),
        _ => {
            let at = packet.l3() + IPV6_HEADER + 4;
            u32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"))
        }
    }
}

fn ipv4(header: &[u8], id: u16, (start, end, more): (usize, usize, bool)) -> Vec<u8> {
    let (mut header, _) = Ipv4Header::from_slice(header).expect("a header");
    header.identification = id;
    header.dont_fragment = false;
    header.more_fragments = more;
    let offset = u16::try_from(start / 8).expect("16 bits");
    header.fragment_offset = offset.try_into().expect("13 bits");
    header.set_payload_len(end - start).expect("it fits");
    header.header_checksum = header.calc_header_checksum();
    header.to_bytes().to_vec()
}

fn ipv6(header: &[u8], id: u32, (start, end, more): (usize, usize, bool)) -> Vec<u8> {
    const FRAGMENT: u8 = 44;
    let mut ip = header.to_vec();
    let protocol = std::mem::replace(&mut ip[6], FRAGMENT);
    ip[4..6].copy_from_slice(&((8 + end - start) as u16).to_be_bytes());
    let offset = (start as u16 | u16::from(more)).to_be_bytes();
    ip.extend([protocol, 0, offset[0], offset[1]]);
    ip.extend(id.to_be_bytes());
    ip
}
