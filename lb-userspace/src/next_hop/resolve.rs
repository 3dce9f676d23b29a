//! Route, link and neighbour make a next hop.

use std::{collections::HashSet, net::IpAddr};

use super::{
    NextHop, Resolution, Why,
    links::Links,
    neighbours::{Key, Neighbours},
    routes::Route,
};

/// Resolves a target; adds the neighbour that it depends on to `needed`, usable or not.
pub(super) fn resolve(
    target: IpAddr,
    route: &Route,
    links: &Links,
    neighbours: &Neighbours,
    needed: &mut HashSet<Key>,
) -> Resolution {
    match next_hop(target, route, links, neighbours, needed) {
        Ok(next_hop) => Resolution::Resolved(next_hop),
        Err(why) => Resolution::Unresolved(why),
    }
}

fn next_hop(
    target: IpAddr,
    route: &Route,
    links: &Links,
    neighbours: &Neighbours,
    needed: &mut HashSet<Key>,
) -> Result<NextHop, Why> {
    let path = route.as_ref().map_err(Clone::clone)?;
    let exit = links.exit(path.ifindex)?;
    let interface = || links.name(path.ifindex);
    if path.encapsulated {
        return Err(Why::Encapsulated {
            interface: interface(),
        });
    }
    let gateway = path.gateway.unwrap_or(target);
    let key = Key {
        ifindex: path.ifindex,
        address: gateway,
    };
    needed.insert(key);
    let destination_mac = neighbours.usable(&key).ok_or_else(|| Why::NoNeighbour {
        gateway,
        interface: interface(),
    })?;
    Ok(NextHop {
        ifindex: exit.ifindex,
        source_mac: exit.mac,
        destination_mac,
        vlan: exit.vlan,
        mtu: path.mtu.map_or(exit.mtu, |mtu| mtu.min(exit.mtu)),
        on_link: path.gateway.is_none(),
    })
}
