//! Route, link and neighbour make a next hop.

use std::net::IpAddr;

use super::{
    NextHop, Resolution, Why,
    links::{Exit, Links},
    neighbours::{Key, Neighbours},
    routes::{Path, Route},
};

/// Resolves a target; and the neighbour that it depends on, usable or not.
pub(super) fn resolve(
    target: IpAddr,
    route: &Route,
    links: &Links,
    neighbours: &Neighbours,
) -> (Option<Key>, Resolution) {
    let way = route
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|path| Ok((path, exit(path, links)?)));
    let (path, exit) = match way {
        Ok(way) => way,
        Err(why) => return (None, Resolution::Unresolved(why)),
    };
    let gateway = path.gateway.unwrap_or(target);
    let key = Key {
        ifindex: path.ifindex,
        address: gateway,
    };
    let resolution = match neighbours.usable(&key) {
        Some(destination_mac) => Resolution::Resolved(NextHop {
            ifindex: exit.ifindex,
            source_mac: exit.mac,
            destination_mac,
            vlan: exit.vlan,
            mtu: path.mtu.map_or(exit.mtu, |mtu| mtu.min(exit.mtu)),
            on_link: path.gateway.is_none(),
        }),
        None => Resolution::Unresolved(Why::NoNeighbour {
            gateway,
            interface: links.name(path.ifindex),
        }),
    };
    (Some(key), resolution)
}

fn exit(path: &Path, links: &Links) -> Result<Exit, Why> {
    let exit = links.exit(path.ifindex)?;
    if path.encapsulated {
        return Err(Why::Encapsulated {
            interface: links.name(path.ifindex),
        });
    }
    Ok(exit)
}
