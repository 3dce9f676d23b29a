//! `weir service`.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use clap::{Args, Subcommand};

use super::{
    Show,
    client::{Client, segment},
    table::table,
};
use crate::{
    config::{Service, http::Http},
    dataplane::Drops,
    desired::{Algorithm, Mode, OnDeath, OnEmpty, Protocol, Tracking},
    state::ServiceView,
};

#[derive(Subcommand)]
pub(super) enum Verb {
    /// List all services.
    List,
    /// Show one.
    Show {
        /// The service.
        name: String,
    },
    /// Add one, or replace it whole.
    Put(Put),
    /// Remove one: its VIP is the kernel's again.
    Remove {
        /// The service.
        name: String,
    },
}

#[derive(Args)]
pub(super) struct Put {
    /// The service.
    name: String,
    /// Its VIP.
    #[arg(long)]
    address: IpAddr,
    /// Its port.
    #[arg(long)]
    port: u16,
    /// Its protocol.
    #[arg(long, value_enum, default_value = "tcp")]
    protocol: Protocol,
    /// How packets are forwarded.
    #[arg(long, value_enum)]
    mode: Mode,
    /// The pool that serves it.
    #[arg(long)]
    pool: String,
    /// Idle time after which a flow may be forgotten, such as 15m.
    #[arg(long, value_parser = humantime::parse_duration)]
    idle_timeout: Option<Duration>,
    /// How a new flow's backend is chosen.
    #[arg(long, value_enum, default_value = "maglev")]
    algorithm: Algorithm,
    /// How long a client that opens nothing new keeps its backend, such as 1h.
    #[arg(long, value_parser = humantime::parse_duration)]
    affinity: Option<Duration>,
    /// UDP: which flows are remembered.
    #[arg(long, value_enum, default_value = "hash")]
    tracking: Tracking,
    /// What becomes of a dead backend's connections.
    #[arg(long, value_enum, default_value = "reset")]
    on_backend_death: OnDeath,
    /// What becomes of packets that no backend is left for.
    #[arg(long, value_enum, default_value = "reset")]
    on_no_backend: OnEmpty,
    /// A pool that serves it while every backend of its own fails its checks.
    #[arg(long)]
    fallback_pool: Option<String>,
}

pub(super) async fn run(client: &Client, show: Show, verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::List => show.print(&client.get("/v1/services").await?, listed),
        Verb::Show { name } => {
            let service: ServiceView = client.get(&path(&name)).await?;
            show.print(&BTreeMap::from([(name, service)]), listed)
        }
        Verb::Put(put) => {
            let service = Service {
                address: put.address,
                port: put.port,
                protocol: put.protocol,
                mode: put.mode,
                pool: put.pool,
                idle_timeout: put.idle_timeout,
                algorithm: put.algorithm,
                affinity: put.affinity,
                tracking: put.tracking,
                on_backend_death: put.on_backend_death,
                on_no_backend: put.on_no_backend,
                fallback_pool: put.fallback_pool,
                // Too much for flags: they are written to the file or the API.
                http: Http::default(),
                tls: None,
            };
            client.put(&path(&put.name), &service).await
        }
        Verb::Remove { name } => client.delete(&path(&name)).await,
    }
}

fn path(name: &str) -> String {
    format!("/v1/services/{}", segment(name))
}

/// A row a service.
pub(super) fn listed(services: &BTreeMap<String, ServiceView>) -> String {
    let head = [
        "SERVICE",
        "VIP",
        "PROTOCOL",
        "MODE",
        "ALGORITHM",
        "POOL",
        "PACKETS",
        "CONNECTIONS",
        "DROPS",
    ];
    table(
        &head,
        services.iter().map(|(name, service)| {
            let ServiceView {
                config,
                served_by,
                counters,
                http,
                ..
            } = service;
            let http = http.map_or(0, |http| http.connections);
            [
                name.clone(),
                std::net::SocketAddr::new(config.address, config.port).to_string(),
                config.protocol.to_string(),
                config.mode.to_string(),
                config.algorithm.to_string(),
                served_by.clone(),
                counters.traffic.packets.to_string(),
                (counters.traffic.connections + http).to_string(),
                drops(&counters.drops),
            ]
        }),
    )
}

/// `no_backend 3, too_big 1`.
pub(super) fn drops(drops: &Drops) -> String {
    let drops = drops
        .iter()
        .map(|(reason, count)| format!("{reason} {count}"));
    drops.collect::<Vec<_>>().join(", ")
}
