//! Which VIPs this node announces.

use std::fmt;

use super::families::Families;
use crate::ha::routes::{RouteState, RouteView, RoutesView};

/// VIPs by address.
pub(super) fn routes(families: &mut Families<'_>, routes: &RoutesView) -> fmt::Result {
    let named: Vec<_> = routes
        .iter()
        .map(|(vip, view)| (vip.to_string(), view))
        .collect();
    let each = |value: fn(&RouteView) -> u64| {
        let all = named.iter();
        all.map(move |(vip, view)| ([("vip", vip.as_str())], value(view)))
    };
    families.gauge(
        "weir_route_announced",
        "1 where the agent has a VIP on an interface, for a routing daemon to announce",
        each(|view| u64::from(view.state == RouteState::Announced)),
    )?;
    families.counter(
        "weir_route_changes",
        "Changes of what the agent does about a VIP",
        each(|view| view.changes),
    )
}
