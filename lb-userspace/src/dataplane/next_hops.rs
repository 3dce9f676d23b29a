//! Where backends' frames go: the resolver's answers in the data path's layout.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use lb_common::abi::{self, Backend, backend_flags, mac_word};

use crate::next_hop::{Resolution, Table, Told};

/// The resolver's latest table, as far as it leads out of interfaces that Weir was given.
pub(crate) struct NextHops {
    table: Arc<Table>,
    /// Each one's index in `DEVICES`, by its own.
    devices: BTreeMap<u32, u16>,
}

impl NextHops {
    /// Nothing resolved yet; only frames out of these interfaces will be, given in the order
    /// of `DEVICES`.
    pub(crate) fn new(interfaces: impl Iterator<Item = u32>) -> Self {
        Self {
            table: Arc::default(),
            devices: interfaces.zip(0..).collect(),
        }
    }

    /// Takes the resolver's next table; returns what is another now.
    pub(crate) fn update(&mut self, table: Arc<Table>) -> Told {
        let old = std::mem::replace(&mut self.table, table);
        let (old, new) = (&old.next_hops, &self.table.next_hops);
        let other = new.iter().filter(|(at, hop)| old.get(at) != Some(*hop));
        let other = other.map(|(at, hop)| (*at, Some(hop.clone())));
        let gone = old.keys().filter(|at| !new.contains_key(at));
        other.chain(gone.map(|at| (*at, None))).collect()
    }

    /// Puts the next hop of `address` into a backend's entry; where there is none, packets
    /// will ask the kernel, and be counted with a reason if that does not know either.
    pub(crate) fn put(&self, address: IpAddr, backend: &mut Backend) {
        backend.next_hop = abi::NextHop::default();
        backend.flags &= !backend_flags::ROUTED;
        let Some(Resolution::Resolved(hop)) = self.table.next_hops.get(&address) else {
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
