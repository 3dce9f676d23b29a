//! What each balancer says on the wire about who holds addresses.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lab::Lab;
use nix::{
    net::if_::if_nametoindex,
    sys::{
        socket::{
            AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt,
            socket, sockopt,
        },
        time::TimeVal,
    },
};

/// Something that a balancer said.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) at: Instant,
    /// Its port on the segment.
    pub(crate) who: String,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// An ARP message of this sender address; broadcast: to all.
    Arp { sender: Ipv4Addr, to_all: bool },
    /// A neighbour advertisement of this target; to all nodes: unsolicited.
    Neighbour { target: Ipv6Addr, to_all: bool },
    /// A VRRP advertisement.
    Advert {
        source: IpAddr,
        destination: IpAddr,
        ttl: u8,
        message: Vec<u8>,
    },
}

impl What {
    /// Whether only the holder of one of these may say so.
    pub(crate) fn claims(&self, vips: &[IpAddr]) -> bool {
        match self {
            Self::Arp { sender, .. } => vips.contains(&(*sender).into()),
            Self::Neighbour { target, .. } => vips.contains(&(*target).into()),
            Self::Advert { message, .. } => message.get(2).is_some_and(|priority| *priority > 0),
        }
    }

    /// Whether it tells everybody where one of these is.
    pub(crate) fn announces(&self, vip: IpAddr) -> bool {
        match (self, vip) {
            (Self::Arp { sender, to_all }, IpAddr::V4(v4)) => *to_all && *sender == v4,
            (Self::Neighbour { target, to_all }, IpAddr::V6(v6)) => *to_all && *target == v6,
            _ => false,
        }
    }
}

/// A running capture.
pub(crate) struct Capture {
    stop: Arc<AtomicBool>,
    said: Arc<Mutex<Vec<Said>>>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Listens at the balancers' ports.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let lan = lab.lan().context("the lab has no segment")?;
        let names: Vec<String> = lab.balancers().iter().map(|b| b.name.clone()).collect();
        let (socket, ports) = lan.run(|| {
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )?;
            setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20))?;
            let patience = TimeVal::new(0, 50_000);
            setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
            let mut ports = Vec::new();
            for name in names {
                let port = if_nametoindex(name.as_str())?;
                // On the second segment, if there is one.
                let back = if_nametoindex(format!("{name}-back").as_str()).ok();
                ports.extend(
                    back.into_iter()
                        .chain([port])
                        .map(|port| (port, name.clone())),
                );
            }
            anyhow::Ok((socket, ports))
        })??;
        let (stop, said) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, heard) = (Arc::clone(&stop), Arc::clone(&said));
        let thread = std::thread::spawn(move || listen(&socket, &ports, &stopped, &heard));
        Ok(Self {
            stop,
            said,
            thread: Some(thread),
        })
    }

    /// Everything so far.
    pub(crate) fn said(&self) -> Vec<Said> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.clone()
    }

    /// Who has claimed one of these addresses, or the role, since then; each once.
    pub(crate) fn claimants(&self, vips: &[IpAddr], since: Instant) -> Vec<String> {
        let said = self.said().into_iter();
        let claims = said.filter(|said| said.at >= since && said.what.claims(vips));
        let mut who: Vec<_> = claims.map(|said| said.who).collect();
        who.sort();
        who.dedup();
        who
    }

    /// When this balancer last claimed one of these addresses, or the role.
    pub(crate) fn last_claim(&self, who: &str, vips: &[IpAddr]) -> Option<Instant> {
        let said = self.said().into_iter();
        let claims = said.filter(|said| said.who == who && said.what.claims(vips));
        claims.map(|said| said.at).next_back()
    }

    /// How often this balancer has told everybody since then that it holds an address.
    pub(crate) fn announcements(&self, who: &str, vip: IpAddr, since: Instant) -> usize {
        let said = self.said().into_iter();
        said.filter(|said| said.who == who && said.at >= since && said.what.announces(vip))
            .count()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(socket: &OwnedFd, ports: &[(u32, String)], stop: &AtomicBool, said: &Mutex<Vec<Said>>) {
    const OUTGOING: u8 = 4;
    let mut frame = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let received = recvfrom::<LinkAddr>(socket.as_fd().as_raw_fd(), &mut frame);
        let Ok((length, Some(from))) = received else {
            continue;
        };
        let port = ports
            .iter()
            .find(|(index, _)| *index as usize == from.ifindex());
        let Some((_, who)) = port.filter(|_| from.pkttype() != OUTGOING) else {
            continue;
        };
        if let Some(what) = read(&frame[..length]) {
            let said_now = Said {
                at: Instant::now(),
                who: who.clone(),
                what,
            };
            said.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(said_now);
        }
    }
}

/// The three kinds that matter.
fn read(frame: &[u8]) -> Option<What> {
    let (ethernet, packet) = frame.split_at_checked(14)?;
    let v4 = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?));
    match (&ethernet[12..], packet.get(9)?, packet.get(6)?) {
        ([0x08, 0x06], ..) => Some(What::Arp {
            sender: v4(14)?,
            to_all: ethernet[..6] == [0xff; 6],
        }),
        ([0x08, 0x00], 112, _) => Some(What::Advert {
            source: v4(12)?.into(),
            destination: v4(16)?.into(),
            ttl: packet[8],
            message: packet.get(20..)?.to_vec(),
        }),
        ([0x86, 0xdd], _, 112) => Some(What::Advert {
            source: v6(8)?.into(),
            destination: v6(24)?.into(),
            ttl: packet[7],
            message: packet.get(40..)?.to_vec(),
        }),
        ([0x86, 0xdd], _, 58) if packet.get(40) == Some(&136) => Some(What::Neighbour {
            target: v6(48)?,
            to_all: v6(24)? == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        }),
        _ => None,
    }
}

/// Between two looks at what has been said.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
