//! `weir status`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Show, backend, client::Client, service, shared};
use crate::{
    shared::SharedView,
    state::{PoolView, ServiceView, StatusView},
};

#[derive(Serialize)]
struct Everything {
    status: StatusView,
    #[serde(skip_serializing_if = "Option::is_none")]
    shared: Option<SharedView>,
    services: BTreeMap<String, ServiceView>,
    pools: BTreeMap<String, PoolView>,
}

pub(super) async fn run(client: &Client, show: Show) -> anyhow::Result<()> {
    let all = Everything {
        status: client.get("/v1/status").await?,
        shared: client.get("/v1/shared").await?,
        services: client.get("/v1/services").await?,
        pools: client.get("/v1/pools").await?,
    };
    show.print(&all, |all| {
        let status = &all.status;
        let mut text = format!(
            "weir {}, process {}, up {} s; {} of {} backends in use\n",
            status.version,
            status.pid,
            status.uptime_seconds,
            status.backends_in_use,
            status.backends,
        );
        if let Some(view) = &all.shared {
            text += &shared::text(view);
        }
        for attached in &status.interfaces {
            let reason = attached.reason.as_ref();
            let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
            text += &format!(
                "{}: XDP {} (driver {}){reason}\n",
                attached.interface, attached.mode, attached.driver
            );
        }
        let unmatched = service::drops(&status.drops);
        if !unmatched.is_empty() {
            text += &format!("dropped, of no one service: {unmatched}\n");
        }
        text += &format!(
            "\n{}\n\n{}",
            service::listed(&all.services),
            backend::listed(&all.pools)
        );
        text
    })
}
