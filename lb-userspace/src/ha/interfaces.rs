//! What the kernel says of interfaces and their addresses, followed by its events.

use std::{collections::HashMap, net::IpAddr};

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp, XdpAttached},
};

use super::announce::Mac;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    /// Administratively up and with carrier.
    pub(super) up: bool,
    pub(super) mac: Option<Mac>,
    /// Whether an XDP program is attached.
    pub(super) xdp: bool,
}

/// All interfaces by name, and their addresses that can be sent from.
#[derive(Clone, Debug, Default)]
pub(super) struct Interfaces {
    by_name: HashMap<String, Interface>,
    /// By index; in the kernel's order, of which the first is the one to send from.
    addresses: HashMap<u32, Vec<IpAddr>>,
}

impl Interfaces {
    pub(super) fn get(&self, name: &str) -> Option<&Interface> {
        self.by_name.get(name)
    }

    /// Addresses of an interface.
    pub(super) fn addresses(&self, index: u32) -> &[IpAddr] {
        self.addresses.get(&index).map_or(&[], Vec::as_slice)
    }

    /// Takes in what the kernel says.
    pub(super) fn follow(&mut self, message: &RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(link) => {
                if let Some((name, interface)) = parse(link) {
                    self.forget(interface.index);
                    self.by_name.insert(name, interface);
                }
            }
            RouteNetlinkMessage::DelLink(link) if whole(link) => {
                self.forget(link.header.index);
                self.addresses.remove(&link.header.index);
            }
            RouteNetlinkMessage::NewAddress(address) => self.address(address, true),
            RouteNetlinkMessage::DelAddress(address) => self.address(address, false),
            _ => {}
        }
    }

    /// An interface may have another name now.
    fn forget(&mut self, index: u32) {
        self.by_name.retain(|_, interface| interface.index != index);
    }

    fn address(&mut self, message: &AddressMessage, there: bool) {
        let Some(address) = local(message) else {
            return;
        };
        let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed;
        let usable = !flags(message).intersects(unusable);
        let all = self.addresses.entry(message.header.index).or_default();
        let known = all.iter().position(|known| *known == address);
        match (known, there && usable) {
            (Some(at), false) => drop(all.remove(at)),
            (None, true) => all.push(address),
            _ => {}
        }
    }
}

/// The address of this end.
pub(super) fn local(message: &AddressMessage) -> Option<IpAddr> {
    let attributes = message.attributes.iter();
    let found = attributes.filter_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some((0, *address)),
        AddressAttribute::Address(address) => Some((1, *address)),
        _ => None,
    });
    found.min().map(|(_, address)| address)
}

fn flags(message: &AddressMessage) -> AddressFlags {
    let attributes = message.attributes.iter();
    let found = attributes.filter_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let short = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    found.fold(short, |all, flags| all | flags)
}

/// Whether it is about the interface itself: bridges speak of their ports likewise.
fn whole(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

fn parse(message: &LinkMessage) -> Option<(String, Interface)> {
    let up = LinkFlags::Up | LinkFlags::Running;
    let mut interface = Interface {
        index: message.header.index,
        up: message.header.flags.contains(up),
        ..Interface::default()
    };
    let mut name = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Address(value) => interface.mac = value.as_slice().try_into().ok(),
            LinkAttribute::Xdp(values) => {
                interface.xdp = values.iter().any(|value| match value {
                    LinkXdp::Attached(attached) => *attached != XdpAttached::None,
                    _ => false,
                });
            }
            _ => {}
        }
    }
    (whole(message)).then_some((name?, interface))
}
