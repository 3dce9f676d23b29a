//! Network interfaces, as far as they decide about frames.

use std::collections::HashMap;

use rtnetlink::packet_route::{
    AddressFamily,
    link::{
        InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
        VlanProtocol,
    },
};

use super::Why;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) layer: LinkLayerType,
    /// `None` if not six bytes.
    pub(super) mac: Option<[u8; 6]>,
    /// Bytes.
    pub(super) mtu: u32,
    /// Administratively up and with carrier.
    pub(super) up: bool,
    pub(super) tag: Tag,
}

/// What an interface adds to frames before it hands them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    None,
    /// An 802.1Q tag; the parent then sends the frame.
    Vlan {
        parent: u32,
        id: u16,
    },
    /// An 802.1ad tag, or a parent in another namespace.
    Other,
}

/// Where and how frames leave the host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) ifindex: u32,
    pub(super) vlan: Option<u16>,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
}

/// All interfaces, by index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Links(HashMap<u32, Link>);

impl Links {
    /// Takes in an interface that exists; says whether that changed anything.
    pub(super) fn set(&mut self, message: &LinkMessage) -> bool {
        let Some(link) = parse(message) else {
            return false;
        };
        let changed = self.0.get(&message.header.index) != Some(&link);
        self.0.insert(message.header.index, link);
        changed
    }

    /// Forgets an interface; says whether it was known.
    pub(super) fn remove(&mut self, message: &LinkMessage) -> bool {
        // A bridge says "deleted" with its own family of a port that only leaves it.
        message.header.interface_family == AddressFamily::Unspec
            && self.0.remove(&message.header.index).is_some()
    }

    /// The interface's name, or its number if it is not known.
    pub(super) fn name(&self, ifindex: u32) -> String {
        self.0
            .get(&ifindex)
            .map_or_else(|| format!("#{ifindex}"), |link| link.name.clone())
    }

    /// How frames that are routed to an interface leave the host.
    pub(super) fn exit(&self, ifindex: u32) -> Result<Exit, Why> {
        let (link, mac) = self.usable(ifindex)?;
        let (ifindex, vlan) = match link.tag {
            Tag::None => (ifindex, None),
            Tag::Vlan { parent, id } if self.usable(parent)?.0.tag == Tag::None => {
                (parent, Some(id))
            }
            Tag::Vlan { .. } | Tag::Other => {
                return Err(Why::Encapsulated {
                    interface: link.name.clone(),
                });
            }
        };
        Ok(Exit {
            ifindex,
            vlan,
            mac,
            mtu: link.mtu,
        })
    }

    fn usable(&self, ifindex: u32) -> Result<(&Link, [u8; 6]), Why> {
        let interface = || self.name(ifindex);
        match self.0.get(&ifindex) {
            Some(link) if link.layer == LinkLayerType::Loopback => Err(Why::Local),
            Some(Link {
                layer: LinkLayerType::Ether,
                up: true,
                mac: Some(mac),
                ..
            }) => Ok((&self.0[&ifindex], *mac)),
            Some(link) if link.layer != LinkLayerType::Ether || link.mac.is_none() => {
                Err(Why::NotEthernet {
                    interface: interface(),
                })
            }
            _ => Err(Why::LinkDown {
                interface: interface(),
            }),
        }
    }
}

impl FromIterator<LinkMessage> for Links {
    fn from_iter<I: IntoIterator<Item = LinkMessage>>(messages: I) -> Self {
        let mut links = Self::default();
        for message in messages {
            links.set(&message);
        }
        links
    }
}

/// `None` for messages that only tell a part: bridge ports, wireless events.
fn parse(message: &LinkMessage) -> Option<Link> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let (mut name, mut mtu, mut mac, mut parent, mut elsewhere) = (None, None, None, None, false);
    let mut vlan = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Mtu(value) => mtu = Some(*value),
            LinkAttribute::Address(value) => mac = value.as_slice().try_into().ok(),
            LinkAttribute::Link(value) => parent = Some(*value),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(values) => {
                vlan = values.iter().find_map(|value| match value {
                    LinkInfo::Data(InfoData::Vlan(values)) => Some(values),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let tag = vlan.map_or(Tag::None, |values| {
        let dot1q = values.contains(&InfoVlan::Protocol(VlanProtocol::Ieee8021Q));
        let id = values.iter().find_map(|value| match value {
            InfoVlan::Id(id) => Some(*id),
            _ => None,
        });
        match (parent, id) {
            (Some(parent), Some(id)) if dot1q && !elsewhere => Tag::Vlan { parent, id },
            _ => Tag::Other,
        }
    });
    let up = LinkFlags::Up | LinkFlags::Running;
    Some(Link {
        name: name?,
        layer: message.header.link_layer_type,
        mac,
        mtu: mtu?,
        up: message.header.flags.contains(up),
        tag,
    })
}
