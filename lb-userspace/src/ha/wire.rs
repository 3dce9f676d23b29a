//! The sockets that advertisements go through.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddrV4, SocketAddrV6},
    num::NonZeroU32,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::vrrp::{GROUP_V4, GROUP_V6, PROTOCOL, TTL};

/// Internetwork control (RFC 2474, 4.2.2.2), which queues prefer.
const CONTROL: u32 = 0xc0;
/// The longest that an advertisement may be here.
const LONGEST: usize = 2048;

/// A socket for one family at one interface.
pub(super) struct Wire {
    socket: Socket,
    ifindex: u32,
}

/// A message that has come.
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// TTL or hop limit.
    pub(super) ttl: u8,
}

impl Wire {
    /// Opens it; `multicast`: and joins the group.
    pub(super) fn open(ifindex: u32, v4: bool, multicast: bool) -> io::Result<Self> {
        let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
        let protocol = Protocol::from(i32::from(PROTOCOL));
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        let only = NonZeroU32::new(ifindex);
        setsockopt(&socket, sockopt::Priority, &7)?;
        if v4 {
            socket.bind_device_by_index_v4(only)?;
            socket.set_ttl_v4(TTL.into())?;
            socket.set_tos_v4(CONTROL)?;
            socket.set_multicast_ttl_v4(TTL.into())?;
            socket.set_multicast_loop_v4(false)?;
            if multicast {
                let at = InterfaceIndexOrAddress::Index(ifindex);
                socket.join_multicast_v4_n(&GROUP_V4, &at)?;
            }
        } else {
            socket.bind_device_by_index_v6(only)?;
            socket.set_unicast_hops_v6(TTL.into())?;
            socket.set_tclass_v6(CONTROL)?;
            socket.set_multicast_hops_v6(TTL.into())?;
            socket.set_multicast_loop_v6(false)?;
            socket.set_multicast_if_v6(ifindex)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            if multicast {
                socket.join_multicast_v6(&GROUP_V6, ifindex)?;
            }
        }
        Ok(Self { socket, ifindex })
    }

    /// The interface that it was opened for.
    pub(super) fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Sends a message between addresses of its family.
    pub(super) fn send(&self, bytes: &[u8], source: IpAddr, destination: IpAddr) -> io::Result<()> {
        let (fd, iov) = (self.socket.as_raw_fd(), [io::IoSlice::new(bytes)]);
        let flags = MsgFlags::empty();
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: self.ifindex as i32,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(source.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
                sendmsg(
                    fd,
                    &iov,
                    &[ControlMessage::Ipv4PacketInfo(&info)],
                    flags,
                    Some(&to),
                )?;
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: source.octets(),
                    },
                    ipi6_ifindex: self.ifindex,
                };
                let scope = match destination.is_unicast_link_local() || destination.is_multicast()
                {
                    true => self.ifindex,
                    false => 0,
                };
                let to = SockaddrIn6::from(SocketAddrV6::new(destination, 0, 0, scope));
                sendmsg(
                    fd,
                    &iov,
                    &[ControlMessage::Ipv6PacketInfo(&info)],
                    flags,
                    Some(&to),
                )?;
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }

    /// The next message that waits, if any.
    pub(super) fn receive(&self) -> io::Result<Option<Received>> {
        let mut buffer = [0; LONGEST];
        let mut control = nix::cmsg_space!(libc::in6_pktinfo, i32);
        let mut iov = [IoSliceMut::new(&mut buffer)];
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = match recvmsg::<SockaddrStorage>(fd, &mut iov, Some(&mut control), flags) {
            Ok(message) => message,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (mut ttl, mut destination) = (0, None);
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv6HopLimit(limit) => ttl = u8::try_from(limit).unwrap_or(0),
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    destination = Some(IpAddr::from(info.ipi6_addr.s6_addr));
                }
                _ => {}
            }
        }
        let from = message
            .address
            .and_then(|from| Some(from.as_sockaddr_in6()?.ip()));
        let length = message.bytes.min(LONGEST);
        let bytes = &buffer[..length];
        Ok(match (from, destination) {
            (Some(source), Some(destination)) => Some(Received {
                bytes: bytes.to_vec(),
                source: source.into(),
                destination,
                ttl,
            }),
            _ => Some(of_ipv4(bytes).unwrap_or(Received {
                bytes: Vec::new(),
                source: Ipv4Addr::UNSPECIFIED.into(),
                destination: Ipv4Addr::UNSPECIFIED.into(),
                ttl: 0,
            })),
        })
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The message behind an IPv4 header, which raw sockets get too.
fn of_ipv4(packet: &[u8]) -> Option<Received> {
    let header = packet.first_chunk::<20>()?;
    let address = |at: usize| Some(IpAddr::from(*header.get(at..)?.first_chunk::<4>()?));
    let length = usize::from(header[0] & 0x0f) * 4;
    Some(Received {
        bytes: packet.get(length.max(20)..)?.to_vec(),
        source: address(12)?,
        destination: address(16)?,
        ttl: header[8],
    })
}
