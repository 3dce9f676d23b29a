//! How `weir status` puts the state of a shared configuration.

use std::{
    fmt::Display,
    time::{Duration, UNIX_EPOCH},
};

use humantime::format_rfc3339_seconds;

use crate::shared::{AgreementView, Origin, SharedView};

/// A line for each thing that is to be known.
pub(super) fn text(view: &SharedView) -> String {
    let since = time(view.since);
    let connected = match &view.error {
        _ if view.connected => format!("connected since {since}"),
        Some(error) => format!("NOT CONNECTED since {since}: {error}"),
        None => "connecting".to_owned(),
    };
    let from = match view.origin {
        Origin::Etcd => "",
        Origin::Disk => ", from the copy on disk",
    };
    let revision = view.revision;
    let mut text = format!(
        "configuration {}: {connected}; revision {revision} is in force{from}\n",
        view.address
    );
    if let Some(new) = &view.not_in_force {
        let revision = match new.revision {
            0 => "what is there now".to_owned(),
            revision => format!("revision {revision}"),
        };
        text += &format!("  {revision} is NOT in force here: {}\n", new.error);
    }
    if let Some(health) = &view.health {
        text += &agreement(health);
    }
    if let Some(error) = &view.copy_error {
        text += &format!("  the copy on disk is NOT up to date: {error}\n");
    }
    text
}

fn agreement(view: &AgreementView) -> String {
    let since = time(view.since);
    match &view.error {
        _ if view.agreed => {
            let (count, names) = (view.nodes.len(), view.nodes.join(", "));
            let nodes = if count == 1 { "node" } else { "nodes" };
            format!("  health is agreed since {since}, by {count} {nodes}: {names}\n")
        }
        Some(error) => {
            format!(
                "  health is NOT AGREED since {since}, this node's checks alone count: {error}\n"
            )
        }
        None => "  health is not agreed yet, this node's checks alone count\n".to_owned(),
    }
}

fn time(seconds: u64) -> impl Display {
    format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds))
}
