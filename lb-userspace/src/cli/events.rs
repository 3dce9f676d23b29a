//! `weir events`.

use std::time::{Duration, UNIX_EPOCH};

use humantime::format_rfc3339_millis;

use super::{Show, client::Client, table::table};
use crate::events::EventView;

pub(super) async fn run(client: &Client, show: Show) -> anyhow::Result<()> {
    let events: Vec<EventView> = client.get("/v1/events").await?;
    show.print(&events, |events| {
        let head = ["WHEN", "KIND", "WHAT", "EVENT"];
        let row = |event: &EventView| {
            let at = UNIX_EPOCH + Duration::from_secs_f64(event.at.max(0.0));
            let sign = if event.warning { "! " } else { "" };
            [
                format_rfc3339_millis(at).to_string(),
                event.kind.to_string(),
                event.subject.clone(),
                format!("{sign}{}", event.text),
            ]
        };
        table(&head, events.iter().map(row))
    })
}
