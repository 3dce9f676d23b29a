//! The VIPs on the interface: what is there, and making it what was decided.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::IpAddr,
    time::SystemTime,
};

use super::{
    super::{kernel::Kernel, view::seconds},
    decide::Decision,
    view::{RouteState, RouteView, RoutesView},
};
use crate::{
    config::ha::VirtualAddress,
    events::{self, Kind},
};

/// Adding and removing addresses.
pub(super) trait Addresses {
    /// Addresses of an interface, and whether each is kept for ever.
    fn on(&mut self, ifindex: u32) -> io::Result<HashMap<IpAddr, bool>>;
    /// Adds an address, or lets it go on, for so many seconds.
    fn hold(&mut self, ifindex: u32, address: &VirtualAddress, seconds: u32) -> io::Result<()>;
    /// Removes an address, if it is there.
    fn release(&mut self, ifindex: u32, address: &VirtualAddress) -> io::Result<()>;
}

impl Addresses for Kernel {
    fn on(&mut self, ifindex: u32) -> io::Result<HashMap<IpAddr, bool>> {
        self.kept_addresses(ifindex)
    }

    fn hold(&mut self, ifindex: u32, address: &VirtualAddress, seconds: u32) -> io::Result<()> {
        Kernel::hold(self, ifindex, address, seconds)
    }

    fn release(&mut self, ifindex: u32, address: &VirtualAddress) -> io::Result<()> {
        Kernel::release(self, ifindex, address)
    }
}

/// The VIPs, as they were made last.
#[derive(Default)]
pub(super) struct Table {
    pub(super) views: RoutesView,
}

impl Table {
    /// Makes the interface have what was decided. VIPs that are no more are removed.
    pub(super) fn follow(
        &mut self,
        addresses: &mut impl Addresses,
        interface: (&str, Option<u32>),
        lease: u32,
        decisions: &BTreeMap<IpAddr, Decision>,
    ) {
        let (name, index) = interface;
        let there = match index {
            Some(index) => addresses.on(index).map_err(|error| error.to_string()),
            None => Err(format!("there is no interface {name}")),
        };
        let gone = Decision {
            announce: false,
            reason: "no service has this address any more".to_owned(),
        };
        let past = self
            .views
            .keys()
            .filter(|vip| !decisions.contains_key(*vip));
        let past: Vec<IpAddr> = past.copied().collect();
        let past = past.iter().map(|vip| (vip, &gone));
        for (&vip, decision) in decisions.iter().chain(past) {
            let (state, reason) = match (&there, index) {
                (Ok(there), Some(index)) => make(
                    addresses,
                    index,
                    vip,
                    lease,
                    decision,
                    there.get(&vip).copied(),
                ),
                (Err(problem), _) if decision.announce => (RouteState::Failed, problem.clone()),
                _ => (RouteState::Withheld, decision.reason.clone()),
            };
            self.note(vip, name, state, reason);
        }
        self.views
            .retain(|vip, view| decisions.contains_key(vip) || view.state == RouteState::Failed);
    }

    /// Removes all; whether there were any.
    pub(super) fn clear(
        &mut self,
        addresses: &mut impl Addresses,
        interface: (&str, Option<u32>),
        reason: &str,
    ) -> bool {
        let announced = |view: &RouteView| view.state == RouteState::Announced;
        let any = self.views.values().any(announced);
        let withheld = self.views.keys().map(|&vip| {
            let reason = reason.to_owned();
            (
                vip,
                Decision {
                    announce: false,
                    reason,
                },
            )
        });
        let withheld = withheld.collect();
        self.follow(addresses, interface, 0, &withheld);
        any
    }

    fn note(&mut self, vip: IpAddr, interface: &str, state: RouteState, reason: String) {
        let old = self.views.get(&vip);
        let changed = old.is_none_or(|old| old.state != state);
        if changed {
            let tell = match state {
                RouteState::Announced | RouteState::Withheld => events::info,
                RouteState::Failed | RouteState::Foreign => events::warn,
            };
            tell(Kind::Vip, vip, format!("{state} at {interface}: {reason}"));
        }
        let view = RouteView {
            state,
            reason,
            interface: interface.to_owned(),
            since: match old {
                Some(old) if !changed => old.since,
                _ => seconds(SystemTime::now()),
            },
            // The first state is none.
            changes: old.map_or(0, |old| old.changes + u64::from(changed)),
        };
        self.views.insert(vip, view);
    }
}

/// Makes one so. `found`: whether it is there, and if so, whether for ever.
fn make(
    addresses: &mut impl Addresses,
    ifindex: u32,
    vip: IpAddr,
    lease: u32,
    decision: &Decision,
    found: Option<bool>,
) -> (RouteState, String) {
    // This node's own are on a lease, and so are those that a dead agent has left.
    if found == Some(true) {
        let reason = match decision.announce {
            true => "it was there, for ever".to_owned(),
            false => format!("it was there, for ever, although: {}", decision.reason),
        };
        return (RouteState::Foreign, reason);
    }
    let address = VirtualAddress {
        address: vip,
        prefix: if vip.is_ipv4() { 32 } else { 128 },
    };
    let (done, state) = match decision.announce {
        true => (
            addresses.hold(ifindex, &address, lease),
            RouteState::Announced,
        ),
        false if found.is_none() => (Ok(()), RouteState::Withheld),
        false => (addresses.release(ifindex, &address), RouteState::Withheld),
    };
    match done {
        Ok(()) => (state, decision.reason.clone()),
        Err(error) => (RouteState::Failed, error.to_string()),
    }
}
