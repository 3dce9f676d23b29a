//! The kernel's neighbour entries (ARP and neighbour discovery).

use std::{collections::HashMap, net::IpAddr};

use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

/// Names a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) ifindex: u32,
    pub(super) address: IpAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Neighbour {
    state: NeighbourState,
    mac: Option<[u8; 6]>,
}

impl Neighbour {
    /// The MAC address, if frames may be sent to it.
    fn usable(self) -> Option<[u8; 6]> {
        use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
        let known = matches!(
            self.state,
            Reachable | Stale | Delay | Probe | Permanent | Noarp
        );
        let unicast = |mac: &[u8; 6]| mac[0] & 1 == 0 && *mac != [0; 6];
        self.mac.filter(unicast).filter(|_| known)
    }
}

/// All neighbours.
#[derive(Debug, Default)]
pub(super) struct Neighbours(HashMap<Key, Neighbour>);

impl Neighbours {
    /// Takes in an entry that exists: which one, and whether its usable MAC address changed.
    pub(super) fn set(&mut self, message: &NeighbourMessage) -> Option<(Key, bool)> {
        let (key, neighbour) = parse(message)?;
        let before = self.usable(&key);
        self.0.insert(key, neighbour);
        Some((key, before != neighbour.usable()))
    }

    /// Takes in that an entry was deleted: which one, and whether a usable MAC address went with
    /// it.
    ///
    /// Of one that is `needed`, the MAC address stays, as stale: the kernel's garbage collection
    /// takes entries that are perfectly well, and a kick soon tells. (An entry that an operator
    /// deletes was reported as failed just before.)
    pub(super) fn remove(
        &mut self,
        message: &NeighbourMessage,
        needed: impl Fn(&Key) -> bool,
    ) -> Option<(Key, bool)> {
        let (key, _) = parse(message)?;
        let usable = self.usable(&key).is_some();
        match self.0.get_mut(&key) {
            Some(neighbour) if usable && needed(&key) => {
                neighbour.state = NeighbourState::Stale;
                Some((key, false))
            }
            _ => {
                self.0.remove(&key);
                Some((key, usable))
            }
        }
    }

    /// Takes in all entries that exist: those that are others now, and whether their usable MAC
    /// addresses changed. What is gone and `needed` stays as in [`Neighbours::remove`].
    pub(super) fn replace(&mut self, new: Self, needed: impl Fn(&Key) -> bool) -> Vec<(Key, bool)> {
        let old = std::mem::replace(self, new);
        let mut changed = Vec::new();
        for (key, before) in &old.0 {
            match self.0.get(key) {
                Some(now) if now == before => {}
                Some(now) => changed.push((*key, now.usable() != before.usable())),
                None if before.usable().is_some() && needed(key) => {
                    let state = NeighbourState::Stale;
                    self.0.insert(*key, Neighbour { state, ..*before });
                    changed.push((*key, false));
                }
                None => changed.push((*key, before.usable().is_some())),
            }
        }
        let come = self.0.iter().filter(|(key, _)| !old.0.contains_key(key));
        changed.extend(come.map(|(key, now)| (*key, now.usable().is_some())));
        changed
    }

    /// A neighbour's MAC address, if frames may be sent to it.
    pub(super) fn usable(&self, key: &Key) -> Option<[u8; 6]> {
        self.0.get(key).and_then(|neighbour| neighbour.usable())
    }

    /// Whether the kernel should be asked to resolve or confirm a neighbour. Never so for permanent
    /// ones: that would make the kernel forget that they are.
    pub(super) fn wants_kick(&self, key: &Key) -> bool {
        use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable};
        !self.0.get(key).is_some_and(|neighbour| {
            matches!(
                neighbour.state,
                Reachable | Delay | Probe | Permanent | Noarp
            )
        })
    }
}

impl FromIterator<NeighbourMessage> for Neighbours {
    fn from_iter<I: IntoIterator<Item = NeighbourMessage>>(messages: I) -> Self {
        Self(messages.into_iter().filter_map(|m| parse(&m)).collect())
    }
}

/// `None` for what is not ARP or neighbour discovery, such as bridges' forwarding entries.
fn parse(message: &NeighbourMessage) -> Option<(Key, Neighbour)> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(value)) => {
                address = Some(IpAddr::V4(*value));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(value)) => {
                address = Some(IpAddr::V6(*value));
            }
            NeighbourAttribute::LinkLayerAddress(value) => mac = value.as_slice().try_into().ok(),
            _ => {}
        }
    }
    let key = Key {
        ifindex: message.header.ifindex,
        address: address?,
    };
    let state = message.header.state;
    Some((key, Neighbour { state, mac }))
}
