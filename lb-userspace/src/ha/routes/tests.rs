//! The table of VIPs against an interface that a test plays.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::IpAddr,
};

use super::{
    decide::Decision,
    table::{Addresses, Table},
    view::RouteState,
};
use crate::config::ha::VirtualAddress;

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));
const LO: (&str, Option<u32>) = ("lo", Some(1));

/// Addresses, and whether each is kept for ever.
#[derive(Default)]
struct Interface {
    has: HashMap<IpAddr, bool>,
    refuses: bool,
}

impl Addresses for Interface {
    fn on(&mut self, _: u32) -> io::Result<HashMap<IpAddr, bool>> {
        Ok(self.has.clone())
    }

    fn hold(&mut self, _: u32, address: &VirtualAddress, seconds: u32) -> io::Result<()> {
        assert_eq!((address.prefix, seconds), (32, 3));
        if self.refuses {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.has.insert(address.address, false);
        Ok(())
    }

    fn release(&mut self, _: u32, address: &VirtualAddress) -> io::Result<()> {
        assert_eq!(self.has.remove(&address.address), Some(false));
        Ok(())
    }
}

fn follow(table: &mut Table, interface: &mut Interface, announce: bool) -> RouteState {
    let reason = "because".to_owned();
    let decisions = BTreeMap::from([(VIP, Decision { announce, reason })]);
    table.follow(interface, LO, 3, &decisions);
    table.views[&VIP].state
}

#[test]
fn a_vip_comes_and_goes() {
    let (mut table, mut interface) = <(Table, Interface)>::default();
    assert_eq!(
        follow(&mut table, &mut interface, false),
        RouteState::Withheld
    );
    assert!(interface.has.is_empty());
    assert_eq!(
        follow(&mut table, &mut interface, true),
        RouteState::Announced
    );
    assert!(!interface.has[&VIP]);
    assert_eq!(table.views[&VIP].changes, 1);
    follow(&mut table, &mut interface, true);
    assert_eq!(table.views[&VIP].changes, 1);
    assert!(table.clear(&mut interface, LO, "the agent is ending"));
    assert!(interface.has.is_empty());
    assert_eq!(table.views[&VIP].reason, "the agent is ending");
}

#[test]
fn what_a_dead_agent_left_is_adopted_or_removed() {
    for announce in [true, false] {
        let (mut table, mut interface) = <(Table, Interface)>::default();
        interface.has.insert(VIP, false);
        follow(&mut table, &mut interface, announce);
        assert_eq!(interface.has.contains_key(&VIP), announce);
    }
}

#[test]
fn what_somebody_else_has_put_there_is_left_alone() {
    for announce in [true, false] {
        let (mut table, mut interface) = <(Table, Interface)>::default();
        interface.has.insert(VIP, true);
        assert_eq!(
            follow(&mut table, &mut interface, announce),
            RouteState::Foreign
        );
        assert!(!table.clear(&mut interface, LO, "the agent is ending"));
        assert!(interface.has[&VIP]);
    }
}

#[test]
fn the_vip_of_no_service_goes() {
    let (mut table, mut interface) = <(Table, Interface)>::default();
    follow(&mut table, &mut interface, true);
    table.follow(&mut interface, LO, 3, &BTreeMap::new());
    assert!(interface.has.is_empty() && table.views.is_empty());
}

#[test]
fn what_the_kernel_refuses_is_tried_again() {
    let (mut table, mut interface) = <(Table, Interface)>::default();
    interface.refuses = true;
    assert_eq!(follow(&mut table, &mut interface, true), RouteState::Failed);
    interface.refuses = false;
    assert_eq!(
        follow(&mut table, &mut interface, true),
        RouteState::Announced
    );
    let absent = ("dummy0", None);
    let reason = "because".to_owned();
    let decisions = BTreeMap::from([(
        VIP,
        Decision {
            announce: true,
            reason,
        },
    )]);
    table.follow(&mut interface, absent, 3, &decisions);
    assert_eq!(table.views[&VIP].state, RouteState::Failed);
    assert_eq!(table.views[&VIP].reason, "there is no interface dummy0");
}
