//! ICMP errors about packets of the clients' connections: they go where those go, and leave no
//! trace.

use etherparse::{
    Icmpv4Type, Ipv4Header, PacketBuilder, PacketHeaders, SlicedPacket, TransportHeader,
    icmpv4::{DestUnreachableHeader, TimeExceededCode},
};
use lb_common::{
    aside::aside,
    icmp::pass_on,
    memory::Memory,
    steer::{Exit, Verdict, steer},
};
use proptest::{prelude::*, sample::Index};

use crate::{
    wire::{self, BACKEND_SIDE, CLIENT_SIDE, Endpoint, PORT, VIP, packet},
    world::{Outcome, World},
};

/// A router anywhere.
const ROUTER: [u8; 4] = [100, 64, 0, 1];

/// Whom an error reached: by the first byte of its MAC address, and by its address.
type Reached = (u8, [u8; 4]);

/// Whom an error reached, from whom it seems to be, and between whom the packet was that it is
/// about.
type Told = (Reached, [u8; 4], (Endpoint, Endpoint));

impl World {
    /// A router cannot pass on what the client was answered, and the backend's end cannot pass on
    /// what the client said.
    pub(crate) fn complain(&mut self, which: Index) -> Outcome {
        let Some(place) = self.pick(which, |_| true) else {
            return Ok(());
        };
        let connection = self.connections[place];
        let (client, vip) = (wire::client(connection.client), (VIP, PORT));
        let udp = self.policy.udp;
        let before = trace(&self.tables);
        let there = error(&self.tables, ROUTER, BACKEND_SIDE, udp, (vip, client));
        if connection.lost {
            if let Ok(((id, _), ..)) = there {
                prop_assert!(!self.servers[&u32::from(id)].dead, "sent to the dead");
            }
        } else {
            let (id, source) = (connection.backend, connection.source);
            let (at, from) = ((wire::backend(id), PORT), wire::backend(id));
            let reached = (id as u8, at.0);
            let router = if self.policy.full_nat {
                source.0
            } else {
                ROUTER
            };
            prop_assert_eq!(there, Ok((reached, router, (at, source))));
            let back = error(&self.tables, from, CLIENT_SIDE, udp, (source, at));
            let reached = (wire::CLIENT_MAC[0], client.0);
            prop_assert_eq!(back, Ok((reached, VIP, (client, vip))));
        }
        prop_assert_eq!(trace(&self.tables), before);
        Ok(())
    }
}

/// An error about a packet between two endpoints, and what became of it.
fn error(
    tables: &Memory,
    sender: [u8; 4],
    side: u32,
    udp: bool,
    about: (Endpoint, Endpoint),
) -> Result<Told, Verdict> {
    let flags = (!udp).then_some(lb_common::packet::tcp_flags::ACK);
    let quoted = packet(about.0, about.1, flags);
    let kind = match side {
        BACKEND_SIDE => {
            Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                next_hop_mtu: 1400,
            })
        }
        _ => Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit),
    };
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(sender, about.0.0, 64);
    let mut frame = Vec::new();
    // As little as there must be, so that what is behind it shows that nobody looks at it.
    let quote = &quoted[14..42];
    let written = builder.icmpv4(kind).write(&mut frame, quote);
    written.expect("writing to memory");
    assert_eq!(steer(&mut frame, tables), Verdict::Aside);
    assert_eq!(aside(&mut frame, tables), Verdict::Icmp);
    match pass_on(&mut frame, tables) {
        Verdict::Send(Exit { ifindex, .. }) if ifindex == side => Ok(read(&frame)),
        verdict => Err(verdict),
    }
}

/// Reads an error whose checksums are right.
fn read(frame: &[u8]) -> Told {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a packet");
    let Some(TransportHeader::Icmpv4(icmp)) = headers.transport else {
        panic!("no ICMP");
    };
    let quote = headers.payload.slice();
    assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(quote));
    let sliced = SlicedPacket::from_ethernet(frame).expect("a packet");
    let outer = sliced.net.as_ref().and_then(|net| net.ipv4_ref());
    let outer = outer.expect("IPv4").header().to_header();
    assert_eq!(outer.header_checksum, outer.calc_header_checksum());
    assert_eq!(outer.time_to_live, 63);
    let (quoted, _) = Ipv4Header::from_slice(quote).expect("a quote");
    assert_eq!(quoted.header_checksum, quoted.calc_header_checksum());
    let port = |at| u16::from_be_bytes([quote[at], quote[at + 1]]);
    (
        (frame[0], outer.destination),
        outer.source,
        ((quoted.source, port(20)), (quoted.destination, port(22))),
    )
}

/// All that packets leave behind in the maps, in words.
fn trace(tables: &Memory) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        tables.flows,
        tables.nat_forward,
        tables.nat_return,
        tables.affinities,
        tables.connections,
        tables.turns
    )
}
