//! What should become of a packet, and whether it does.

use anyhow::{Context as _, Result, ensure};
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use lb_common::reason::Reason;

use super::{
    counts::{Counts, dropped, forwarded},
    packet::Packet,
    world::World,
};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// Where a packet comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The NIC towards clients.
    Client,
    /// The NIC towards backends.
    Backend,
}

/// What should become of it.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The kernel gets it, as it was.
    Pass,
    /// It goes nowhere.
    Drop(Reason),
    /// It is dropped, and these bytes tell its sender.
    Refuse(Reason, Vec<u8>),
    /// This goes out where it came in.
    Tx(Packet),
    /// This goes out of another interface.
    Redirect(Packet),
}

/// A packet, and what should become of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// In words.
    pub what: String,
    /// Where it comes in.
    pub side: Side,
    /// It.
    pub packet: Packet,
    /// What should become of it.
    pub verdict: Verdict,
    /// The service on whose account it is forwarded or dropped; empty: none.
    pub service: String,
}

impl Verdict {
    fn action(&self) -> u32 {
        match self {
            Self::Pass => XDP_PASS,
            Self::Drop(_) => XDP_DROP,
            Self::Refuse(..) | Self::Tx(_) => XDP_TX,
            Self::Redirect(_) => XDP_REDIRECT,
        }
    }
}

impl Case {
    /// Feeds the packet and compares: the action, every byte of what goes out, its checksums,
    /// and which counters have counted.
    ///
    /// # Errors
    ///
    /// Something is not as it should be.
    pub fn check(&self, world: &World) -> Result<()> {
        self.compare(world)
            .with_context(|| format!("{}: {:?}", self.what, self.packet))
    }

    fn compare(&self, world: &World) -> Result<()> {
        let frame = self.packet.bytes();
        let (ran, counted) = world.observe(self.side, &frame)?;
        let wanted = self.verdict.action();
        ensure!(
            ran.action == wanted,
            "action {}, not {wanted}; counted: {counted:?}",
            ran.action
        );
        match &self.verdict {
            Verdict::Pass => same(&ran.frame, &frame)?,
            Verdict::Drop(_) => {}
            Verdict::Refuse(_, bytes) => same(&ran.frame, bytes)?,
            Verdict::Tx(packet) | Verdict::Redirect(packet) => same(&ran.frame, &packet.bytes())?,
        }
        if wanted > XDP_PASS {
            check_sums(&ran.frame)?;
        }
        let expected = self.expected_counts(frame.len() as u64);
        ensure!(counted == expected, "counted {counted:?}, not {expected:?}");
        Ok(())
    }

    fn expected_counts(&self, bytes: u64) -> Counts {
        let service = &self.service;
        match &self.verdict {
            Verdict::Drop(reason) | Verdict::Refuse(reason, _) => dropped(service, *reason),
            // What comes from backends is not counted.
            Verdict::Tx(_) | Verdict::Redirect(_) if !service.is_empty() => {
                let mut counts = forwarded(service, bytes);
                if self.packet.opens() {
                    for whose in [service, "backends"] {
                        counts.insert(format!("{whose} connections"), 1);
                    }
                }
                counts
            }
            _ => Counts::new(),
        }
    }
}

/// Whether a frame went out.
pub fn went_out(action: u32) -> bool {
    ![XDP_DROP, XDP_PASS].contains(&action)
}

/// Whether two frames are the same, byte for byte.
///
/// # Errors
///
/// They are not: both, in hexadecimal.
pub fn same(is: &[u8], should: &[u8]) -> Result<()> {
    let shown = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    ensure!(
        is == should,
        "bytes differ\n     is {}\n should {}",
        shown(is),
        shown(should)
    );
    Ok(())
}

/// Computes the checksums of a frame anew.
///
/// # Errors
///
/// One is wrong, or the frame is none.
pub fn check_sums(frame: &[u8]) -> Result<()> {
    let headers = PacketHeaders::from_ethernet_slice(frame)?;
    let payload = headers.payload.slice();
    let transport = headers.transport.context("nothing above IP")?;
    let (is, should) = match (headers.net.context("no IP")?, &transport) {
        (NetHeaders::Ipv4(ip, _), transport) => {
            ensure!(ip.header_checksum == ip.calc_header_checksum(), "IPv4's");
            match transport {
                TransportHeader::Tcp(tcp) => (tcp.checksum, tcp.calc_checksum_ipv4(&ip, payload)?),
                // None is none.
                TransportHeader::Udp(udp) if udp.checksum == 0 => (0, 0),
                TransportHeader::Udp(udp) => (udp.checksum, udp.calc_checksum_ipv4(&ip, payload)?),
                TransportHeader::Icmpv4(icmp) => {
                    (icmp.checksum, icmp.icmp_type.calc_checksum(payload))
                }
                other => anyhow::bail!("{other:?} is not expected"),
            }
        }
        (NetHeaders::Ipv6(ip, _), transport) => match transport {
            TransportHeader::Tcp(tcp) => (tcp.checksum, tcp.calc_checksum_ipv6(&ip, payload)?),
            TransportHeader::Udp(udp) => (udp.checksum, udp.calc_checksum_ipv6(&ip, payload)?),
            TransportHeader::Icmpv6(icmp) => {
                let sum = icmp.icmp_type;
                (
                    icmp.checksum,
                    sum.calc_checksum(ip.source, ip.destination, payload)?,
                )
            }
            other => anyhow::bail!("{other:?} is not expected"),
        },
        (other, _) => anyhow::bail!("{other:?} is not expected"),
    };
    ensure!(is == should, "checksum {is:#06x}, not {should:#06x}");
    Ok(())
}
