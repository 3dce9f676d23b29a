//! Who holds shared addresses, and whom this node tells of flows.

use std::{collections::BTreeMap, fmt};

use super::families::{Families, Row, Sample};
use crate::ha::{
    GroupCounters, GroupView, Role,
    sync::{PeersView, Progress},
};

const OF_GROUP: [Row<GroupCounters>; 5] = [
    ("transitions", "Changes of role", |all| all.transitions),
    ("adverts_sent", "Advertisements sent", |all| {
        all.adverts_sent
    }),
    ("adverts_received", "Advertisements of other nodes", |all| {
        all.adverts_received
    }),
    (
        "adverts_discarded",
        "Messages with the group's id that were no valid advertisements",
        |all| all.adverts_discarded,
    ),
    (
        "errors",
        "Messages, announcements or addresses that the kernel refused",
        |all| all.errors,
    ),
];

const OF_PEER: [Row<Progress>; 7] = [
    ("sent", "Datagrams sent to a node", |peer| peer.sent),
    ("received", "Datagrams of a node", |peer| peer.received),
    ("lost", "Datagrams of a node that did not come", |peer| {
        peer.lost
    }),
    (
        "refused",
        "Datagrams from a node's address that were not its own, or came again",
        |peer| peer.refused,
    ),
    ("records_sent", "Flows and slots told to a node", |peer| {
        peer.records_sent
    }),
    (
        "records_received",
        "Flows and slots told by a node",
        |peer| peer.records_received,
    ),
    (
        "overflowed",
        "Times that something was not sent to a node because too much waited",
        |peer| peer.overflowed,
    ),
];

/// Groups by name.
pub(super) fn groups(
    families: &mut Families<'_>,
    groups: &BTreeMap<String, GroupView>,
) -> fmt::Result {
    let all = || groups.iter();
    let roles = [Role::Initialize, Role::Backup, Role::Active].map(|role| (role, role.to_string()));
    families.gauge(
        "weir_ha_role",
        "1 for the role that this node has in a group",
        all().flat_map(|(name, view)| {
            roles.iter().map(move |(role, word)| {
                let labels = [("group", name.as_str()), ("role", word.as_str())];
                (labels, u64::from(view.role == *role))
            })
        }),
    )?;
    let group = |name| [("group", name)];
    families.gauge(
        "weir_ha_role_since_timestamp_seconds",
        "Since when, in seconds since 1970",
        all().map(|(name, view)| (group(name.as_str()), view.since)),
    )?;
    families.gauge(
        "weir_ha_priority",
        "The priority, as tracking has left it",
        all().map(|(name, view)| (group(name.as_str()), u64::from(view.priority))),
    )?;
    families.gauge(
        "weir_ha_track_passes",
        "1 where what is tracked is as it should be",
        all().flat_map(|(name, view)| {
            view.track.iter().map(move |(rule, track)| {
                let labels = [("group", name.as_str()), ("track", rule.as_str())];
                (labels, u64::from(track.passes))
            })
        }),
    )?;
    for (name, help, count) in OF_GROUP {
        families.counter(
            &format!("weir_ha_{name}"),
            help,
            all().map(|(name, view)| (group(name.as_str()), count(&view.counters))),
        )?;
    }
    let heard: Vec<_> = all()
        .flat_map(|(name, view)| {
            view.peers
                .iter()
                .map(move |(address, peer)| (name, address.to_string(), peer))
        })
        .collect();
    families.gauge(
        "weir_ha_peer_heard_seconds",
        "Since another node of a group was heard last",
        heard.iter().map(|(name, address, peer)| {
            let labels = [("group", name.as_str()), ("peer", address.as_str())];
            (labels, peer.heard_seconds_ago)
        }),
    )
}

/// Nodes that are told of flows.
pub(super) fn peers(families: &mut Families<'_>, peers: &PeersView) -> fmt::Result {
    let named: Vec<_> = peers
        .iter()
        .map(|(address, view)| (address.to_string(), view))
        .collect();
    let each = |value: fn(&Progress) -> u64| {
        named
            .iter()
            .map(move |(name, view)| -> Sample<'_, 1> { ([("peer", name)], value(view)) })
    };
    families.gauge(
        "weir_sync_connected",
        "1 where a node that is told of flows is heard",
        each(|peer| u64::from(peer.connected)),
    )?;
    families.gauge(
        "weir_sync_synced",
        "1 where all flows of a node's are here",
        each(|peer| u64::from(peer.synced)),
    )?;
    families.gauge(
        "weir_sync_lag_seconds",
        "How long the oldest datagram that a node has not confirmed is under way",
        named.iter().map(|(name, view)| {
            (
                [("peer", name.as_str())],
                view.lag.as_millis() as f64 / 1000.0,
            )
        }),
    )?;
    for (name, help, count) in OF_PEER {
        families.counter(&format!("weir_sync_{name}"), help, each(count))?;
    }
    Ok(())
}
