//! `weir ha`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Subcommand;
use humantime::{format_duration, format_rfc3339_millis};

use super::{
    Show,
    client::{Client, segment},
    table::table,
};
use crate::ha::{
    GroupView, PeerView, TransitionView,
    routes::{RouteView, RoutesView},
    sync::{PeersView, Progress},
};

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Show which addresses this node holds or announces, since when and why, and who else is
    /// there.
    Status,
    /// Show which VIPs this node announces, and why not the others.
    Routes,
    /// Show the nodes that this one tells of its flows, and how far it has come with each.
    Sync,
    /// Have another node take a group, and those that fail over with it.
    HandOver {
        /// The group.
        group: String,
    },
}

pub(super) async fn run(client: &Client, show: Show, verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Status => {
            let announced: RoutesView = client.get("/v1/routes").await?;
            show.print(
                &client.get("/v1/ha").await?,
                |groups: &BTreeMap<String, GroupView>| match (
                    groups.is_empty(),
                    announced.is_empty(),
                ) {
                    (true, false) => routes(&announced),
                    (_, true) => text(groups),
                    (false, false) => format!("{}\n\n{}", text(groups), routes(&announced)),
                },
            )
        }
        Verb::Routes => show.print(&client.get("/v1/routes").await?, routes),
        Verb::Sync => show.print(&client.get("/v1/sync").await?, peers),
        Verb::HandOver { group } => {
            let path = format!("/v1/ha/{}/hand-over", segment(&group));
            client.order(&path).await
        }
    }
}

fn text(groups: &BTreeMap<String, GroupView>) -> String {
    let head = [
        "GROUP",
        "ROLE",
        "SINCE",
        "PRIORITY",
        "INTERFACE",
        "VRID",
        "ADDRESSES",
        "HEARD",
    ];
    let row = |(name, group): (&String, &GroupView)| {
        let addresses = group.addresses.iter().map(ToString::to_string);
        let priority = match group.priority == group.configured_priority {
            true => group.priority.to_string(),
            false => format!("{} of {}", group.priority, group.configured_priority),
        };
        [
            name.clone(),
            group.role.to_string(),
            ago(group.since),
            priority,
            group.interface.clone(),
            group.vrid.to_string(),
            addresses.collect::<Vec<_>>().join(", "),
            heard(group),
        ]
    };
    let mut text = table(&head, groups.iter().map(row));
    for (name, group) in groups {
        text += &format!("\n\n{name}:");
        if let Some(problem) = &group.problem {
            text += &format!("\n  cannot speak: {problem}");
        }
        for (rule, track) in &group.track {
            let cost = match track.passes {
                true => String::new(),
                false => format!(" (priority lowered by {})", track.lower_by),
            };
            text += &format!("\n  {rule}: {}{cost}", track.reason);
        }
        for transition in &group.transitions {
            text += &format!("\n  {}", changed(transition));
        }
    }
    text
}

fn routes(vips: &RoutesView) -> String {
    let head = ["VIP", "STATE", "SINCE", "INTERFACE", "CHANGES", "BECAUSE"];
    let row = |(vip, view): (&IpAddr, &RouteView)| {
        [
            vip.to_string(),
            view.state.to_string(),
            ago(view.since),
            view.interface.clone(),
            view.changes.to_string(),
            view.reason.clone(),
        ]
    };
    table(&head, vips.iter().map(row))
}

fn peers(peers: &PeersView) -> String {
    let head = [
        "NODE",
        "STATE",
        "LAG",
        "SENT",
        "RECEIVED",
        "LOST",
        "REFUSED",
        "OVERFLOWED",
    ];
    let row = |(address, peer): (&SocketAddr, &Progress)| {
        let state = match (peer.connected, peer.synced) {
            (false, _) => "not heard",
            (true, false) => "syncing",
            (true, true) => "synced",
        };
        [
            address.to_string(),
            state.to_owned(),
            format!("{} ms", peer.lag.as_millis()),
            peer.sent.to_string(),
            peer.received.to_string(),
            peer.lost.to_string(),
            peer.refused.to_string(),
            peer.overflowed.to_string(),
        ]
    };
    table(&head, peers.iter().map(row))
}

/// Who else has spoken, the last first.
fn heard(group: &GroupView) -> String {
    let mut peers: Vec<_> = group.peers.iter().collect();
    peers.sort_by(|(_, one), (_, other)| one.heard_seconds_ago.total_cmp(&other.heard_seconds_ago));
    let text = |(address, peer): (_, &PeerView)| {
        let ago = whole(Duration::from_secs_f64(peer.heard_seconds_ago.max(0.0)));
        format!("{address} {ago} ago, priority {}", peer.priority)
    };
    match peers.is_empty() {
        true => "nobody".to_owned(),
        false => peers.into_iter().map(text).collect::<Vec<_>>().join("; "),
    }
}

fn changed(transition: &TransitionView) -> String {
    let TransitionView {
        at,
        from,
        to,
        reason,
    } = transition;
    let at = UNIX_EPOCH + Duration::from_secs_f64(at.max(0.0));
    format!("{} {to}, was {from}: {reason}", format_rfc3339_millis(at))
}

fn ago(since: f64) -> String {
    let since = UNIX_EPOCH + Duration::from_secs_f64(since.max(0.0));
    let age = SystemTime::now().duration_since(since).unwrap_or_default();
    whole(age)
}

/// Seconds are enough, but of what is shorter.
fn whole(time: Duration) -> String {
    let shown = match time.as_secs() {
        0 => Duration::from_millis(time.as_millis() as u64),
        seconds => Duration::from_secs(seconds),
    };
    format_duration(shown).to_string()
}
