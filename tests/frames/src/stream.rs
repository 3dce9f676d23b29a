//! What is to be generated.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
use lb_common::generate::{HEADERS, SHORT_HEADERS, Stream};

/// Ethernet's shortest frame, without its checksum.
const SHORTEST: usize = 60;
/// What a page has room for beside what the kernel keeps in it.
const LONGEST: usize = 3000;
/// Length of an Ethernet header.
const ETHERNET: usize = 14;

/// The first frame. The others differ in their source's address and port, and in checksums.
#[derive(Clone, Debug)]
pub struct Template {
    pub(crate) frame: Vec<u8>,
    /// Of a single flow, and without an interface.
    stream: Stream,
}

/// One end of a frame's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The NIC's address. The destination's is that of the next hop.
    pub mac: [u8; 6],
    /// Address and port.
    pub address: SocketAddr,
}

/// How many sources frames come from, each of them a flow: powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Addresses, one after the other from the template's on.
    pub addresses: u32,
    /// Ports of each, one after the other from the template's on.
    pub ports: u32,
}

impl Sources {
    /// How many flows that makes.
    pub fn flows(self) -> u64 {
        u64::from(self.addresses) * u64::from(self.ports)
    }
}

impl Template {
    /// The shortest datagram, with a checksum.
    ///
    /// # Errors
    /// The ends are of two families.
    pub fn udp(source: End, destination: End) -> Result<Self> {
        let udp = |payload: &[u8]| {
            let builder =
                ip(source, destination)?.udp(source.address.port(), destination.address.port());
            written(builder.size(payload.len()), |bytes| {
                Ok(builder.write(bytes, payload)?)
            })
        };
        Self::padded(udp)
    }

    /// The shortest TCP SYN: without options; Ethernet's padding is its payload.
    ///
    /// # Errors
    /// The ends are of two families.
    pub fn syn(source: End, destination: End) -> Result<Self> {
        let syn = |payload: &[u8]| {
            let builder = ip(source, destination)?
                .tcp(source.address.port(), destination.address.port(), 1, 64_000)
                .syn();
            written(builder.size(payload.len()), |bytes| {
                Ok(builder.write(bytes, payload)?)
            })
        };
        Self::padded(syn)
    }

    fn padded(frame: impl Fn(&[u8]) -> Result<Vec<u8>>) -> Result<Self> {
        let headers = frame(&[])?.len();
        let length = if headers > SHORT_HEADERS {
            HEADERS
        } else {
            SHORTEST
        };
        Self::new(frame(&vec![0; length.saturating_sub(headers)])?)
    }

    /// Any other frame: Ethernet without a tag, IPv4 or IPv6 without options, TCP without
    /// options or UDP; with checksums, at least 60 bytes, and 80 with IPv6.
    ///
    /// # Errors
    /// It is not such a frame.
    pub fn new(frame: Vec<u8>) -> Result<Self> {
        let headers = PacketHeaders::from_ethernet_slice(&frame).context("not a packet")?;
        let at = |offset: usize| offset as u32;
        let (l4, address_at, ip_check_at) = match headers.net {
            Some(NetHeaders::Ipv4(ip, _)) if ip.options.is_empty() => (34, 26, at(ETHERNET + 10)),
            Some(NetHeaders::Ipv6(_, extensions)) if extensions.is_empty() => (54, 34, 0),
            _ => bail!("neither IPv4 without options nor IPv6 without extension headers"),
        };
        let (end, l4_check_at) = match headers.transport {
            Some(TransportHeader::Udp(udp)) if udp.checksum == 0 => (l4 + 8, 0),
            Some(TransportHeader::Udp(_)) => (l4 + 8, at(l4 + 6)),
            Some(TransportHeader::Tcp(tcp)) if tcp.options.is_empty() => (l4 + 20, at(l4 + 16)),
            _ => bail!("neither UDP nor TCP without options"),
        };
        let least = if end > SHORT_HEADERS {
            HEADERS
        } else {
            SHORTEST
        };
        ensure!(
            (least..=LONGEST).contains(&frame.len()),
            "a frame of {} bytes, which is to have {least} to {LONGEST}",
            frame.len()
        );
        let mut template = [0; HEADERS];
        let copied = template.iter_mut().zip(&frame);
        copied.for_each(|(to, from)| *to = *from);
        let word = |at: usize| u32::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
        let check = |at: u32| if at == 0 { 0 } else { word(at as usize) };
        let stream = Stream {
            template,
            address: word(address_at) << 16 | word(address_at + 2),
            address_at: at(address_at),
            port: word(l4),
            port_at: at(l4),
            mask: 0,
            port_bits: 0,
            ip_check: check(ip_check_at),
            ip_check_at,
            l4_check: check(l4_check_at),
            l4_check_at,
            ifindex: 0,
            reserved: 0,
        };
        Ok(Self { frame, stream })
    }

    /// For the generator's program.
    pub(crate) fn stream(&self, sources: Sources, ifindex: u32) -> Result<Stream> {
        let Sources { addresses, ports } = sources;
        ensure!(
            addresses.is_power_of_two() && ports.is_power_of_two(),
            "numbers of sources are powers of two, not {addresses} addresses and {ports} ports"
        );
        ensure!(
            self.stream.port + ports <= 1 << 16,
            "there are no {ports} ports from {} on",
            self.stream.port
        );
        let mask = u32::try_from(sources.flows() - 1).context("more than 2^32 flows")?;
        Ok(Stream {
            mask,
            port_bits: ports.trailing_zeros(),
            ifindex,
            ..self.stream
        })
    }
}

fn ip(
    source: End,
    destination: End,
) -> Result<etherparse::PacketBuilderStep<etherparse::IpHeaders>> {
    let ethernet = PacketBuilder::ethernet2(source.mac, destination.mac);
    Ok(match (source.address.ip(), destination.address.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ethernet.ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ethernet.ipv6(source.octets(), destination.octets(), 64)
        }
        (source, destination) => bail!("from {source} to {destination}: two families"),
    })
}

fn written(size: usize, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size);
    write(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use lb_common::frame::{Frame, Window, WindowMut};

    use super::*;

    /// A frame of its bytes.
    struct Bytes(Vec<u8>);

    impl Frame for Bytes {
        fn length(&self) -> usize {
            self.0.len()
        }

        fn window<const N: usize>(&self, offset: usize) -> Option<Window<'_, N>> {
            let bytes = self.0.get(offset..offset + N)?;
            // SAFETY: N bytes, borrowed as long as the window.
            Some(unsafe { Window::new(bytes.as_ptr()) })
        }

        fn window_mut<const N: usize>(&mut self, offset: usize) -> Option<WindowMut<'_, N>> {
            let bytes = self.0.get_mut(offset..offset + N)?;
            // SAFETY: as above, mutably.
            Some(unsafe { WindowMut::new(bytes.as_mut_ptr()) })
        }

        fn grow_front(&mut self, _: usize) -> bool {
            false
        }

        fn shrink_front(&mut self, _: usize) -> bool {
            false
        }

        fn truncate(&mut self, _: usize) {}
    }

    fn ends(source: &str, destination: &str) -> (End, End) {
        let end = |address: &str, mac| End {
            mac: [2, 0, 0, 0, 0, mac],
            address: address.parse().expect("an address"),
        };
        (end(source, 1), end(destination, 2))
    }

    /// Sources and validity of all frames, written over ones.
    fn frames(template: &Template, sources: Sources, count: u64) -> BTreeSet<(IpAddr, u16)> {
        let stream = template.stream(sources, 1).expect("valid");
        let mut seen = BTreeSet::new();
        for number in 0..count {
            let mut frame = Bytes(template.frame.clone());
            frame.0[..SHORT_HEADERS].fill(0xff);
            assert!(stream.write(&mut frame, number));
            let packet = SlicedPacket::from_ethernet(&frame.0).expect("a packet");
            let ip = packet.net.expect("an IP header");
            let (source, headers) = match &ip {
                NetSlice::Ipv4(ip) => {
                    let header = ip.header().to_header();
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                    (IpAddr::V4(header.source.into()), Some(header))
                }
                NetSlice::Ipv6(ip) => (IpAddr::V6(ip.header().source_addr()), None),
                NetSlice::Arp(_) => panic!("ARP"),
            };
            let ipv6 = || match &ip {
                NetSlice::Ipv6(ip) => ip.header().to_header(),
                _ => panic!("not IPv6"),
            };
            let port = match packet.transport.expect("a transport header") {
                TransportSlice::Udp(udp) => {
                    let (header, payload) = (udp.to_header(), udp.payload());
                    let right = match &headers {
                        Some(ip) => header.calc_checksum_ipv4(ip, payload),
                        None => header.calc_checksum_ipv6(&ipv6(), payload),
                    };
                    assert_eq!(header.checksum, right.expect("short"));
                    header.source_port
                }
                TransportSlice::Tcp(tcp) => {
                    let (header, payload) = (tcp.to_header(), tcp.payload());
                    let right = match &headers {
                        Some(ip) => header.calc_checksum_ipv4(ip, payload),
                        None => header.calc_checksum_ipv6(&ipv6(), payload),
                    };
                    assert!(header.syn);
                    assert_eq!(header.checksum, right.expect("short"));
                    header.source_port
                }
                other => panic!("{other:?}"),
            };
            seen.insert((source, port));
        }
        seen
    }

    #[test]
    fn every_flow_comes_once_with_right_checksums() -> Result<()> {
        let sources = Sources {
            addresses: 256,
            ports: 4,
        };
        for (source, destination) in [
            ("10.0.0.0:1024", "198.19.0.1:80"),
            ("[2001:db8::]:65532", "[2001:db8::1]:80"),
        ] {
            let (source, destination) = ends(source, destination);
            for template in [
                Template::udp(source, destination)?,
                Template::syn(source, destination)?,
            ] {
                assert_eq!(frames(&template, sources, 1024).len(), 1024);
                assert_eq!(frames(&template, sources, 4096).len(), 1024);
            }
        }
        Ok(())
    }

    #[test]
    fn what_cannot_be_generated_is_refused() -> Result<()> {
        let (source, destination) = ends("10.0.0.0:65000", "198.19.0.1:80");
        let template = Template::udp(source, destination)?;
        let refused = |addresses, ports| {
            let stream = template.stream(Sources { addresses, ports }, 1);
            stream.expect_err("refused").to_string()
        };
        assert!(refused(3, 1).contains("not 3 addresses"));
        assert!(refused(1, 1024).contains("no 1024 ports from 65000"));
        let short = Template::new(template.frame[..50].to_vec());
        assert!(short.is_err());
        Ok(())
    }
}
