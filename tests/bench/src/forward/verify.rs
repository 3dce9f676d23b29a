//! Whether a balancer forwards as it should, frame by frame.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use frames::Generator;
use lab::Namespace;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
        sockopt::RcvBufForce,
    },
};

/// What frames are to look like at the backends.
pub(crate) struct Expected {
    /// Where they come from; `None`: from as many sources as were generated.
    pub(crate) source: Option<Ipv4Addr>,
    /// Where they go to.
    pub(crate) destinations: BTreeSet<SocketAddrV4>,
    /// How many backends get some, by their MAC.
    pub(crate) backends: usize,
    pub(crate) ttl: u8,
}

/// Source and destination.
type Flow = (SocketAddrV4, SocketAddrV4);

/// The MAC of each flow's backend.
type Flows = BTreeMap<Flow, [u8; 6]>;

/// Sends a frame of each flow twice, and looks at every one at the backends.
pub(crate) fn forwards(
    backends: &Namespace,
    generator: &mut Generator,
    expected: &Expected,
) -> Result<()> {
    let socket = backends.run(|| -> Result<OwnedFd> {
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )?;
        setsockopt(&socket, RcvBufForce, &(64 << 20))?;
        Ok(socket)
    })??;
    let flows = generator.flows() as usize;
    let mut first = None;
    for _ in 0..2 {
        generator.send(flows as u32)?;
        let seen = receive(&socket, flows, expected)?;
        ensure!(
            seen.len() == flows,
            "{} flows arrived of {flows}",
            seen.len()
        );
        let macs: BTreeSet<_> = seen.values().collect();
        ensure!(
            macs.len() == expected.backends,
            "{} backends were sent to, not {}",
            macs.len(),
            expected.backends
        );
        match &first {
            None => first = Some(seen),
            Some(first) => ensure!(*first == seen, "flows changed their backends"),
        }
    }
    Ok(())
}

fn receive(socket: &OwnedFd, frames: usize, expected: &Expected) -> Result<Flows> {
    let mut flows = Flows::new();
    let end = Instant::now() + Duration::from_secs(1);
    let (mut buffer, mut seen) = ([0; 2048], 0);
    while seen < frames {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EAGAIN) => {
                ensure!(Instant::now() < end, "{seen} frames arrived of {frames}");
                std::thread::sleep(Duration::from_millis(1));
            }
            length => {
                if let Some((flow, mac)) = look(&buffer[..length?], expected)? {
                    flows.insert(flow, mac);
                    seen += 1;
                }
            }
        }
    }
    Ok(flows)
}

/// Flow and MAC of a datagram; `None` if it is something else.
fn look(frame: &[u8], expected: &Expected) -> Result<Option<(Flow, [u8; 6])>> {
    let packet = SlicedPacket::from_ethernet(frame)?;
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) =
        (&packet.net, &packet.transport)
    else {
        return Ok(None);
    };
    let (ip, header) = (ip.header().to_header(), udp.to_header());
    let source = SocketAddrV4::new(ip.source.into(), header.source_port);
    let destination = SocketAddrV4::new(ip.destination.into(), header.destination_port);
    let flow = format!("from {source} to {destination}");
    ensure!(
        expected.destinations.contains(&destination)
            && expected
                .source
                .is_none_or(|address| address == *source.ip()),
        "a frame {flow} arrived"
    );
    ensure!(
        ip.time_to_live == expected.ttl,
        "a frame {flow} with TTL {}",
        ip.time_to_live
    );
    let right = header.calc_checksum_ipv4(&ip, udp.payload());
    if ip.header_checksum != ip.calc_header_checksum() || header.checksum != right? {
        bail!("a frame {flow} with a wrong checksum arrived");
    }
    let mac = frame.first_chunk().context("no Ethernet header")?;
    Ok(Some(((source, destination), *mac)))
}
