//! Telling neighbours where an address is now: gratuitous ARP (RFC 5227, 3) and unsolicited
//! neighbour advertisements (RFC 4861, 7.2.6).

use std::{
    io,
    mem::{size_of, zeroed},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd as _,
    ptr::from_mut,
};

use nix::sys::socket::{LinkAddr, MsgFlags, SockaddrLike as _, sendto};
use socket2::{Domain, Socket, Type};

use super::checksum;

/// A hardware address.
pub(super) type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
/// All nodes (RFC 2464, 7).
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
/// Flags of a neighbour advertisement.
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;

/// Sends frames by any interface.
pub(super) struct Announcer(Socket);

impl Announcer {
    pub(super) fn open() -> io::Result<Self> {
        // Protocol 0: it receives nothing.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Tells all neighbours at an interface that the address is at `mac`.
    pub(super) fn announce(
        &self,
        ifindex: u32,
        mac: Mac,
        address: IpAddr,
        router: bool,
    ) -> io::Result<()> {
        match address {
            // Some take it from requests, some from replies.
            IpAddr::V4(v4) => {
                self.send(ifindex, &arp(mac, v4, Operation::Request))?;
                self.send(ifindex, &arp(mac, v4, Operation::Reply))
            }
            IpAddr::V6(v6) => self.send(ifindex, &neighbour_advertisement(mac, v6, router)),
        }
    }

    fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        // SAFETY: zeroes are a value of this plain structure.
        let mut to: libc::sockaddr_ll = unsafe { zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = ifindex as i32;
        to.sll_halen = 6;
        let length = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: it is an address of the family that it says, and of this length.
        let to = unsafe { LinkAddr::from_raw(from_mut(&mut to).cast(), Some(length)) };
        let to = to.ok_or(io::ErrorKind::InvalidInput)?;
        sendto(self.0.as_raw_fd(), frame, &to, MsgFlags::empty())?;
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Request = 1,
    Reply = 2,
}

fn arp(mac: Mac, address: Ipv4Addr, operation: Operation) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    // Ethernet and IPv4, addresses of six and four bytes.
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation as u8]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend(match operation {
        Operation::Request => [0; 6],
        Operation::Reply => BROADCAST,
    });
    frame.extend(address.octets());
    frame
}

fn neighbour_advertisement(mac: Mac, address: Ipv6Addr, router: bool) -> Vec<u8> {
    let flags = OVERRIDE | if router { ROUTER } else { 0 };
    let mut message = vec![136, 0, 0, 0, flags, 0, 0, 0];
    message.extend(address.octets());
    // Option 2, of eight bytes: the target's link-layer address.
    message.extend([2, 1]);
    message.extend(mac);
    let before = checksum::pseudo_header(address.into(), ALL_NODES.into(), ICMPV6, message.len());
    let check = checksum::bytes(before, &message).checksum();
    message[2..4].copy_from_slice(&check.to_ne_bytes());

    let mut frame = ethernet(ALL_NODES_MAC, mac, ETHERTYPE_IPV6);
    let length = (message.len() as u16).to_be_bytes();
    frame.extend([0x60, 0, 0, 0, length[0], length[1], ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

fn ethernet(destination: Mac, source: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(86);
    frame.extend(destination);
    frame.extend(source);
    frame.extend(ethertype.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    #[test]
    fn both_forms_of_gratuitous_arp() {
        let address = Ipv4Addr::new(192, 0, 2, 1);
        let request = arp(MAC, address, Operation::Request);
        assert_eq!(request.len(), 42);
        assert_eq!(request[..6], BROADCAST);
        assert_eq!(request[20..22], [0, 1]);
        assert_eq!(request[22..28], MAC);
        // Sender and target are the same.
        assert_eq!(request[28..32], address.octets());
        assert_eq!(request[38..42], address.octets());
        assert_eq!(arp(MAC, address, Operation::Reply)[20..22], [0, 2]);
    }

    #[test]
    fn an_advertisement_has_a_right_checksum() {
        let address: Ipv6Addr = "2001:db8::1".parse().expect("an address");
        let frame = neighbour_advertisement(MAC, address, true);
        assert_eq!(frame.len(), 86);
        let message = &frame[54..];
        let before =
            checksum::pseudo_header(address.into(), ALL_NODES.into(), ICMPV6, message.len());
        assert_eq!(checksum::bytes(before, message).checksum(), 0);
        assert_eq!((message[0], message[4]), (136, ROUTER | OVERRIDE));
    }
}
