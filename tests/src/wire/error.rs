//! ICMP errors, described.

use std::net::IpAddr;

use etherparse::{
    IpHeaders, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header, PacketBuilder, VlanId,
};

use super::{
    hosts::{CLIENT_MAC, LB_CLIENT_MAC, Mac},
    packet::Packet,
};

/// An ICMP error. Its checksums and lengths are computed when it becomes bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct IcmpError {
    /// Ethernet addresses: from, to.
    pub macs: (Mac, Mac),
    /// VLAN id.
    pub vlan: Option<u16>,
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4: options, whole words.
    pub options: Vec<u8>,
    /// Type and code.
    pub kind: (u8, u8),
    /// The rest of its header: an MTU, say.
    pub rest: [u8; 4],
    /// The packet that it is about, or as much as it quotes of it.
    pub quote: Vec<u8>,
}

impl IcmpError {
    /// An error from somebody to a packet's sender, on the link of the clients' router, that
    /// quotes all of the packet.
    pub fn about(packet: &Packet, source: IpAddr, kind: (u8, u8)) -> Self {
        Self {
            macs: (CLIENT_MAC, LB_CLIENT_MAC),
            vlan: None,
            source,
            destination: packet.source.ip(),
            ttl: 64,
            options: Vec::new(),
            kind,
            rest: [0; 4],
            quote: packet.bytes()[packet.l3()..].to_vec(),
        }
    }

    /// On another link.
    pub fn macs(mut self, from: Mac, to: Mac) -> Self {
        self.macs = (from, to);
        self
    }

    /// With a VLAN tag, or without.
    pub fn vlan(mut self, id: impl Into<Option<u16>>) -> Self {
        self.vlan = id.into();
        self
    }

    /// From and to others.
    pub fn between(mut self, source: IpAddr, destination: IpAddr) -> Self {
        (self.source, self.destination) = (source, destination);
        self
    }

    /// With another TTL.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// Where its ICMP header begins.
    pub fn l4(&self) -> usize {
        let header = match self.source {
            IpAddr::V4(_) => Ipv4Header::MIN_LEN + self.options.len(),
            IpAddr::V6(_) => Ipv6Header::LEN,
        };
        14 + self.vlan.map_or(0, |_| 4) + header
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(self.macs.0, self.macs.1);
        let (ip, rest) = (self.ip(), self.rest);
        let ip = match self.vlan {
            Some(id) => ethernet
                .single_vlan(VlanId::try_new(id).expect("a VLAN id"))
                .ip(ip),
            None => ethernet.ip(ip),
        };
        let mut bytes = Vec::new();
        let (kind, code) = self.kind;
        match self.source {
            IpAddr::V4(_) => ip
                .icmpv4_raw(kind, code, rest)
                .write(&mut bytes, &self.quote),
            IpAddr::V6(_) => ip
                .icmpv6_raw(kind, code, rest)
                .write(&mut bytes, &self.quote),
        }
        .expect("the error can be built");
        bytes
    }

    fn ip(&self) -> IpHeaders {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = Ipv4Header {
                    source: source.octets(),
                    destination: destination.octets(),
                    time_to_live: self.ttl,
                    options: (&*self.options).try_into().expect("whole words"),
                    ..Ipv4Header::default()
                };
                IpHeaders::Ipv4(header, Ipv4Extensions::default())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    source: source.octets(),
                    destination: destination.octets(),
                    hop_limit: self.ttl,
                    ..Ipv6Header::default()
                };
                IpHeaders::Ipv6(header, Ipv6Extensions::default())
            }
            _ => panic!("a packet has one family: {self:?}"),
        }
    }
}
