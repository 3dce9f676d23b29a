//! Packets, described.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, TcpHeader, VlanId,
};

use super::hosts::{CLIENT_MAC, LB_CLIENT_MAC, Mac};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// A TCP or UDP packet. Its checksums and lengths are computed when it becomes bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// Ethernet addresses: from, to.
    pub macs: (Mac, Mac),
    /// VLAN id.
    pub vlan: Option<u16>,
    /// From.
    pub source: SocketAddr,
    /// To.
    pub destination: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Where the sender says more in the IP header than it must.
    pub marked: bool,
    /// IPv4: options, whole words.
    pub options: Vec<u8>,
    /// Offset in units of eight bytes, and whether there are more.
    pub fragment: Option<(u16, bool)>,
    /// IPv6: the extension header in front.
    pub extension: Option<IpNumber>,
    /// TCP or UDP.
    pub transport: Transport,
    /// What it carries.
    pub payload: Vec<u8>,
    /// Behind the packet's end: what fills a frame that is too short for Ethernet.
    pub trailer: Vec<u8>,
}

/// What is above IP; ports are the packet's.
#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    /// TCP.
    Tcp(TcpHeader),
    /// UDP, with a checksum or without.
    Udp(bool),
}

/// A TCP packet between two endpoints, on the link of the clients' router, with data.
pub fn tcp(source: SocketAddr, destination: SocketAddr) -> Packet {
    let mut header = TcpHeader::new(0, 0, 0x0102_0304, 1000);
    (header.ack, header.acknowledgment_number) = (true, 0x0506_0708);
    packet(source, destination, Transport::Tcp(header))
}

/// The same with UDP.
pub fn udp(source: SocketAddr, destination: SocketAddr) -> Packet {
    packet(source, destination, Transport::Udp(true))
}

fn packet(source: SocketAddr, destination: SocketAddr, transport: Transport) -> Packet {
    Packet {
        macs: (CLIENT_MAC, LB_CLIENT_MAC),
        vlan: None,
        source,
        destination,
        ttl: 64,
        marked: true,
        options: Vec::new(),
        fragment: None,
        extension: None,
        transport,
        payload: b"twenty bytes of data".to_vec(),
        trailer: Vec::new(),
    }
}

impl Packet {
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

    /// With another TTL.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// With that much data.
    pub fn carrying(mut self, bytes: usize) -> Self {
        self.payload = (0..bytes).map(|byte| byte as u8).collect();
        self
    }

    /// With that many bytes behind its end.
    pub fn trailed(mut self, bytes: usize) -> Self {
        self.trailer = vec![0xee; bytes];
        self
    }

    /// From and to other endpoints.
    pub fn between(mut self, source: SocketAddr, destination: SocketAddr) -> Self {
        (self.source, self.destination) = (source, destination);
        self
    }

    /// A fragment.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = Some((offset, more));
        self
    }

    /// With an IPv6 extension header in front.
    pub fn extension(mut self, number: IpNumber) -> Self {
        self.extension = Some(number);
        self
    }

    /// With IPv4 options, whole words.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// With other TCP flags and numbers.
    pub fn header(mut self, change: impl FnOnce(&mut TcpHeader)) -> Self {
        if let Transport::Tcp(header) = &mut self.transport {
            change(header);
        }
        self
    }

    /// A TCP packet that opens a connection. Of UDP, any does.
    pub fn opening(self) -> Self {
        self.header(|tcp| (tcp.syn, tcp.ack, tcp.acknowledgment_number) = (true, false, 0))
    }

    /// Without a UDP checksum.
    pub fn without_checksum(mut self) -> Self {
        self.transport = Transport::Udp(false);
        self
    }

    /// 4 or 6.
    pub fn family(&self) -> u8 {
        if self.source.is_ipv4() { 4 } else { 6 }
    }

    /// Whether it is a TCP SYN without ACK.
    pub fn opens(&self) -> bool {
        matches!(&self.transport, Transport::Tcp(tcp) if tcp.syn && !tcp.ack)
    }

    /// Where its IP header begins.
    pub fn l3(&self) -> usize {
        ETHERNET + self.vlan.map_or(0, |_| 4)
    }

    /// Where its TCP or UDP header begins, extension headers aside.
    pub fn l4(&self) -> usize {
        let header = match self.family() {
            4 => Ipv4Header::MIN_LEN + self.options.len(),
            _ => Ipv6Header::LEN,
        };
        self.l3() + header
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(self.macs.0, self.macs.1);
        let ip = match self.vlan {
            Some(id) => ethernet
                .single_vlan(VlanId::try_new(id).expect("a VLAN id"))
                .ip(self.ip()),
            None => ethernet.ip(self.ip()),
        };
        let mut bytes = Vec::new();
        let (from, to) = (self.source.port(), self.destination.port());
        match &self.transport {
            Transport::Tcp(header) => {
                let mut header = header.clone();
                (header.source_port, header.destination_port) = (from, to);
                ip.tcp_header(header).write(&mut bytes, &self.payload)
            }
            Transport::Udp(_) => ip.udp(from, to).write(&mut bytes, &self.payload),
        }
        .expect("the packet can be built");
        if self.transport == Transport::Udp(false) {
            let end = bytes.len() - self.payload.len();
            bytes[end - 2..end].fill(0);
        }
        bytes.extend(&self.trailer);
        bytes
    }

    fn ip(&self) -> IpHeaders {
        let (IpAddr::V4(source), IpAddr::V4(destination)) =
            (self.source.ip(), self.destination.ip())
        else {
            return self.ipv6();
        };
        let mut header = Ipv4Header {
            source: source.octets(),
            destination: destination.octets(),
            time_to_live: self.ttl,
            dont_fragment: self.fragment.is_none(),
            ..Ipv4Header::default()
        };
        if self.marked {
            header.identification = 0x4242;
            header.dscp = 10.try_into().expect("a code point");
            header.ecn = 1.try_into().expect("two bits");
        }
        if let Some((offset, more)) = self.fragment {
            header.fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
            header.more_fragments = more;
        }
        header.options = (&*self.options).try_into().expect("whole words");
        IpHeaders::Ipv4(header, Ipv4Extensions::default())
    }

    fn ipv6(&self) -> IpHeaders {
        let (IpAddr::V6(source), IpAddr::V6(destination)) =
            (self.source.ip(), self.destination.ip())
        else {
            panic!("a packet has one family: {self:?}");
        };
        let mut header = Ipv6Header {
            source: source.octets(),
            destination: destination.octets(),
            hop_limit: self.ttl,
            ..Ipv6Header::default()
        };
        if self.marked {
            header.traffic_class = 0x29;
            header.flow_label = 0x12345.try_into().expect("20 bits");
        }
        let mut extensions = Ipv6Extensions {
            fragment: self.fragment.map(|(offset, more)| {
                let offset = IpFragOffset::try_new(offset).expect("13 bits");
                Ipv6FragmentHeader::new(IpNumber::TCP, offset, more, 7)
            }),
            ..Ipv6Extensions::default()
        };
        // One option of padding fills it.
        let padding = || {
            let padding = [1, 4, 0, 0, 0, 0];
            Some(Ipv6RawExtHeader::new_raw(IpNumber::TCP, &padding).expect("eight bytes"))
        };
        match self.extension {
            Some(IpNumber::IPV6_HEADER_HOP_BY_HOP) => extensions.hop_by_hop_options = padding(),
            Some(IpNumber::IPV6_DESTINATION_OPTIONS) => extensions.destination_options = padding(),
            Some(number) => panic!("{number:?} is not built here"),
            None => {}
        }
        IpHeaders::Ipv6(header, extensions)
    }
}
