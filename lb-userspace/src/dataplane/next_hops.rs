//! Where backends' frames go: the resolver's answers in the data path's layout.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use lb_common::abi::{self, Backend, backend_flags, mac_word};

use crate::next_hop::{NextHop, Resolution, Told};

/// What the resolver has found, as far as it leads out of interfaces that Weir was given.
pub(crate) struct NextHops {
    resolved: HashMap<IpAddr, NextHop>,
    /// Each one's index in `DEVICES`, by its own.
    devices: BTreeMap<u32, u16>,
}

impl NextHops {
    /// Nothing resolved yet; only frames out of these interfaces will be, given in the order
    /// of `DEVICES`.
    pub(crate) fn new(interfaces: impl Iterator<Item = u32>) -> Self {
        Self {
            resolved: HashMap::new(),
            devices: interfaces.zip(0..).collect(),
        }
    }

    /// Takes what the resolver tells.
    pub(crate) fn update(&mut self, told: &Told) {
        for (address, resolution) in told {
            match resolution {
                Some(Resolution::Resolved(hop)) => self.resolved.insert(*address, *hop),
                Some(Resolution::Unresolved(_)) | None => self.resolved.remove(address),
            };
        }
    }

    /// Puts the next hop of `address` into a backend's entry; where there is none, packets
    /// will ask the kernel, and be counted with a reason if that does not know either.
    pub(crate) fn put(&self, address: IpAddr, backend: &mut Backend) {
        backend.next_hop = abi::NextHop::default();
        backend.flags &= !backend_flags::ROUTED;
        let Some(hop) = self.resolved.get(&address) else {
            return;
        };
        let Some(&device) = self.devices.get(&hop.ifindex) else {
            return;
        };
        if !hop.on_link {
            backend.flags |= backend_flags::ROUTED;
        }
        backend.next_hop = abi::NextHop {
            destination: mac_word(hop.destination_mac) | (u64::from(hop.vlan.unwrap_or(0)) << 48),
            source: mac_word(hop.source_mac),
            ifindex: hop.ifindex,
            mtu: u16::try_from(hop.mtu).unwrap_or(u16::MAX),
            device,
        };
    }
}
