//! Netlink without a runtime: the thread that keeps the timers waits for nobody else.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

use rtnetlink::{
    packet_core::{
        ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST,
        NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo},
        link::{LinkAttribute, LinkMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::interfaces::{Interfaces, local};
use crate::config::ha::VirtualAddress;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// Questions to the kernel, and its events, in the namespace of the thread that made it.
pub(super) struct Kernel {
    questions: Socket,
    events: Socket,
    number: u32,
}

impl Kernel {
    pub(super) fn connect() -> io::Result<Self> {
        let mut questions = Socket::new(NETLINK_ROUTE)?;
        questions.bind_auto()?;
        questions.connect(&SocketAddr::new(0, 0))?;
        let mut events = Socket::new(NETLINK_ROUTE)?;
        events.bind(&SocketAddr::new(0, GROUPS))?;
        events.set_non_blocking(true)?;
        Ok(Self {
            questions,
            events,
            number: 0,
        })
    }

    /// Everything as it is now.
    pub(super) fn interfaces(&mut self) -> io::Result<Interfaces> {
        let mut interfaces = Interfaces::default();
        let links = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        for question in [links, addresses] {
            self.ask(question, NLM_F_DUMP, |answer| interfaces.follow(answer))?;
        }
        Ok(interfaces)
    }

    /// Brings one interface up to date: of XDP programs there are no events.
    pub(super) fn look_at(&mut self, name: &str, interfaces: &mut Interfaces) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let question = RouteNetlinkMessage::GetLink(link);
        self.ask(question, NLM_F_ACK, |answer| interfaces.follow(answer))
    }

    /// Addresses of an interface, and whether the kernel keeps each for ever.
    pub(super) fn kept_addresses(&mut self, ifindex: u32) -> io::Result<HashMap<IpAddr, bool>> {
        let mut found = HashMap::new();
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.ask(question, NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewAddress(message) = answer
                && message.header.index == ifindex
                && let Some(address) = local(message)
            {
                found.insert(address, is_for_ever(message));
            }
        })?;
        Ok(found)
    }

    /// Takes in what has happened. False: events were lost.
    pub(super) fn follow(&mut self, interfaces: &mut Interfaces) -> io::Result<bool> {
        loop {
            match self.events.recv_from_full() {
                Ok((bytes, _)) => each(&bytes, |payload| {
                    if let NetlinkPayload::InnerMessage(message) = payload {
                        interfaces.follow(&message);
                    }
                    Ok(())
                })?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Adds an address, or lets one that is there go on, for so many seconds. The kernel takes
    /// it away after that: what holds it may die, or be stopped, at any time.
    pub(super) fn hold(
        &mut self,
        ifindex: u32,
        address: &VirtualAddress,
        seconds: u32,
    ) -> io::Result<()> {
        let mut message = of(ifindex, address);
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = seconds;
        // An IPv6 address that is preferred would be chosen as the source of other traffic.
        lifetime.ifa_preferred = if address.address.is_ipv4() {
            seconds
        } else {
            0
        };
        message
            .attributes
            .push(AddressAttribute::CacheInfo(lifetime));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.ask(RouteNetlinkMessage::NewAddress(message), flags, |_| {})
    }

    /// Removes an address, if it is there.
    pub(super) fn release(&mut self, ifindex: u32, address: &VirtualAddress) -> io::Result<()> {
        let question = RouteNetlinkMessage::DelAddress(of(ifindex, address));
        match self.ask(question, NLM_F_ACK, |_| {}) {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EADDRNOTAVAIL | libc::ENODEV)
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Asks, and reads the answers to the last.
    fn ask(
        &mut self,
        question: RouteNetlinkMessage,
        flags: u16,
        mut answer: impl FnMut(&RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        let mut message = NetlinkMessage::from(question);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = number;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.questions.send(&bytes, 0)?;
        let mut done = false;
        while !done {
            let (bytes, _) = self.questions.recv_from_full()?;
            each(&bytes, |payload| {
                match payload {
                    NetlinkPayload::InnerMessage(message) => answer(&message),
                    NetlinkPayload::Done(_) => done = true,
                    NetlinkPayload::Error(error) => {
                        done = true;
                        return acknowledged(&error);
                    }
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl AsFd for Kernel {
    /// Readable when there are events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

fn acknowledged(error: &ErrorMessage) -> io::Result<()> {
    match error.code {
        None => Ok(()),
        Some(_) => Err(error.to_io()),
    }
}

/// Every message in what was received at once.
fn each(
    mut bytes: &[u8],
    mut take: impl FnMut(NetlinkPayload<RouteNetlinkMessage>) -> io::Result<()>,
) -> io::Result<()> {
    while let Some(length) = bytes.first_chunk() {
        // Messages begin at multiples of four bytes, and have a header of sixteen.
        let length = (u32::from_ne_bytes(*length) as usize).clamp(16, 1 << 20);
        let (one, rest) = bytes.split_at(length.next_multiple_of(4).min(bytes.len()));
        bytes = rest;
        // What this version cannot read is not what was asked for.
        if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) {
            take(message.payload)?;
        }
    }
    Ok(())
}

fn is_for_ever(message: &AddressMessage) -> bool {
    message.attributes.iter().any(|attribute| match attribute {
        AddressAttribute::CacheInfo(lifetime) => lifetime.ifa_valid == u32::MAX,
        _ => false,
    })
}

fn of(ifindex: u32, address: &VirtualAddress) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = ifindex;
    message.header.prefix_len = address.prefix;
    message.header.scope = match address.address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => AddressScope::Link,
        _ => AddressScope::Universe,
    };
    message.header.family = match address.address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message
        .attributes
        .push(AddressAttribute::Local(address.address));
    message
        .attributes
        .push(AddressAttribute::Address(address.address));
    if address.address.is_ipv6() {
        // Who held it before is known to be gone.
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}
