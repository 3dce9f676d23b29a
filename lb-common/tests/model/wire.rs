//! Packets, and what became of them.

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use lb_common::{
    memory::Memory,
    packet::tcp_flags,
    steer::{Exit, Verdict, open, steer},
};

pub(crate) const VIP: [u8; 4] = [192, 0, 2, 1];
pub(crate) const PORT: u16 = 80;
/// Interface towards the clients.
pub(crate) const CLIENT_SIDE: u32 = 1;
/// Interface towards the backends; their MACs begin with their ids.
pub(crate) const BACKEND_SIDE: u32 = 2;
pub(crate) const CLIENT_MAC: [u8; 6] = [0xcc; 6];

/// An address and port.
pub(crate) type Endpoint = ([u8; 4], u16);

/// How many clients there may be.
pub(crate) const CLIENTS: u16 = 40;

/// The endpoint of a client: a few addresses, so that a hash of addresses has a choice.
pub(crate) fn client(number: u16) -> Endpoint {
    ([198, 51, 100, (number % 7) as u8], 10_000 + number)
}

/// A backend's address.
pub(crate) fn backend(id: u32) -> [u8; 4] {
    [10, 0, 0, id as u8]
}

/// What became of a client's packet.
#[derive(Debug)]
pub(crate) enum Sent {
    /// To a backend by id, with this source.
    To(u32, Endpoint),
    /// It was not sent on.
    Not(Verdict),
}

/// A packet from a client to the VIP; no flags: a datagram.
pub(crate) fn send(tables: &Memory, from: Endpoint, flags: Option<u8>) -> Sent {
    let mut frame = packet(from, (VIP, PORT), flags);
    let mut verdict = steer(&mut frame, tables);
    if verdict == Verdict::Open {
        verdict = open(&mut frame, tables);
    }
    match verdict {
        Verdict::Send(Exit {
            ifindex: BACKEND_SIDE,
            ..
        }) => Sent::To(u32::from(frame[0]), endpoints(&frame).0),
        verdict => Sent::Not(verdict),
    }
}

/// A packet from a backend; whom it reaches, and from whom it seems to be.
pub(crate) fn answer(
    tables: &Memory,
    id: u32,
    to: Endpoint,
    flags: Option<u8>,
) -> Result<(Endpoint, Endpoint), Verdict> {
    let mut frame = packet((backend(id), PORT), to, flags);
    match steer(&mut frame, tables) {
        Verdict::Send(Exit {
            ifindex: CLIENT_SIDE,
            ..
        }) => Ok(endpoints(&frame)),
        verdict => Err(verdict),
    }
}

pub(crate) fn packet(from: Endpoint, to: Endpoint, flags: Option<u8>) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from.0, to.0, 64);
    let mut frame = Vec::new();
    let written = match flags {
        None => builder.udp(from.1, to.1).write(&mut frame, b"data"),
        Some(flags) => {
            let mut tcp = builder.tcp(from.1, to.1, 1, 1000);
            if flags & tcp_flags::SYN != 0 {
                tcp = tcp.syn();
            }
            if flags & tcp_flags::FIN != 0 {
                tcp = tcp.fin();
            }
            if flags & tcp_flags::RST != 0 {
                tcp = tcp.rst();
            }
            if flags & tcp_flags::ACK != 0 {
                tcp = tcp.ack(1);
            }
            tcp.write(&mut frame, b"data")
        }
    };
    written.expect("writing to memory");
    frame
}

/// Source and destination.
fn endpoints(frame: &[u8]) -> (Endpoint, Endpoint) {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a packet");
    let ip = sliced.net.as_ref().and_then(|net| net.ipv4_ref());
    let ip = ip.expect("IPv4").header();
    let (from, to) = match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        _ => panic!("no ports"),
    };
    ((ip.source(), from), (ip.destination(), to))
}
