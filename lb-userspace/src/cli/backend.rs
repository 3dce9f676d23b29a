//! `weir backend`.

use std::{collections::BTreeMap, net::SocketAddr, str::FromStr, time::Duration};

use clap::Subcommand;

use super::{
    Show,
    client::{Client, segment},
    table::table,
};
use crate::{
    api::{Drain, Weight},
    config::Backend,
    state::{BackendView, HealthView, PoolView},
};

#[derive(Subcommand)]
pub(super) enum Verb {
    /// List the backends of all pools.
    List,
    /// Show one.
    Show {
        /// POOL/BACKEND.
        backend: Name,
    },
    /// Add one to its pool, or replace it.
    Put {
        /// POOL/BACKEND.
        backend: Name,
        /// Where it listens, such as 10.0.0.11:8080 or [2001:db8::11]:8080.
        address: SocketAddr,
        /// Share of new flows, relative to the pool's other backends; 0: none.
        #[arg(long, default_value_t = 100)]
        weight: u16,
    },
    /// Set its weight.
    Weight {
        /// POOL/BACKEND.
        backend: Name,
        /// Share of new flows, relative to the pool's other backends; 0: none.
        weight: u16,
    },
    /// Drain it: it keeps its flows and gets no new ones.
    Drain {
        /// POOL/BACKEND.
        backend: Name,
        /// When it is out with whatever is left, such as 5m; without, when nothing is.
        #[arg(long, value_parser = humantime::parse_duration)]
        deadline: Option<Duration>,
    },
    /// Undo a drain.
    Undrain {
        /// POOL/BACKEND.
        backend: Name,
    },
    /// Remove one from its pool. Its flows go on until they end.
    Remove {
        /// POOL/BACKEND.
        backend: Name,
    },
}

/// A backend of a pool, written POOL/BACKEND.
#[derive(Clone)]
pub(super) struct Name {
    pool: String,
    backend: String,
}

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pool, backend) = text.split_once('/').ok_or("expected POOL/BACKEND")?;
        Ok(Self {
            pool: pool.to_owned(),
            backend: backend.to_owned(),
        })
    }
}

impl Name {
    fn path(&self) -> String {
        let (pool, backend) = (segment(&self.pool), segment(&self.backend));
        format!("/v1/pools/{pool}/backends/{backend}")
    }
}

pub(super) async fn run(client: &Client, show: Show, verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::List => show.print(&client.get("/v1/pools").await?, listed),
        Verb::Show { backend } => {
            let view: BackendView = client.get(&backend.path()).await?;
            show.print(&view, |view| {
                rows([(backend.pool.as_str(), backend.backend.as_str(), view)])
            })
        }
        Verb::Put {
            backend,
            address,
            weight,
        } => {
            let config = Backend { address, weight };
            client.put(&backend.path(), &config).await
        }
        Verb::Weight { backend, weight } => {
            let path = format!("{}/weight", backend.path());
            client.put(&path, &Weight { weight }).await
        }
        Verb::Drain { backend, deadline } => {
            let path = format!("{}/drain", backend.path());
            client.put(&path, &Drain { deadline }).await
        }
        Verb::Undrain { backend } => client.delete(&format!("{}/drain", backend.path())).await,
        Verb::Remove { backend } => client.delete(&backend.path()).await,
    }
}

/// A row a backend.
pub(super) fn listed(pools: &BTreeMap<String, PoolView>) -> String {
    rows(pools.iter().flat_map(|(pool, view)| {
        let backends = view.backends.iter();
        backends.map(move |(name, view)| (pool.as_str(), name.as_str(), view))
    }))
}

fn rows<'a>(backends: impl IntoIterator<Item = (&'a str, &'a str, &'a BackendView)>) -> String {
    let head = [
        "POOL",
        "BACKEND",
        "ADDRESS",
        "WEIGHT",
        "HEALTH",
        "STATE",
        "FLOWS",
        "PACKETS",
        "CONNECTIONS",
        "WHY",
    ];
    table(
        &head,
        backends.into_iter().map(|(pool, name, view)| {
            [
                pool.to_owned(),
                name.to_owned(),
                view.config.address.to_string(),
                view.config.weight.to_string(),
                health(&view.health),
                state(view),
                view.counters.flows.to_string(),
                view.counters.traffic.packets.to_string(),
                view.counters.traffic.connections.to_string(),
                why(view),
            ]
        }),
    )
}

/// What it is taken for, and what this node's own checks say where that is something else.
fn health(health: &HealthView) -> String {
    match health.here() == health.status {
        true => health.status.clone(),
        false => format!("{}, here {}", health.status, health.here()),
    }
}

fn why(view: &BackendView) -> String {
    let health = &view.health;
    let checks = match &health.here {
        Some(here) if here.status != health.status => {
            format!("{}; here: {}", health.reason, here.reason)
        }
        _ => health.reason.clone(),
    };
    match &view.unreachable {
        Some(unreachable) => format!("unreachable: {unreachable}; {checks}"),
        None => checks,
    }
}

/// `in use`, `out`, or how far its drain has come.
fn state(view: &BackendView) -> String {
    match (&view.drain, view.in_use) {
        (Some(drain), _) => match drain.deadline_seconds {
            Some(seconds) => format!("{}, {seconds} s left", drain.status),
            None => drain.status.clone(),
        },
        (None, true) => "in use".to_owned(),
        (None, false) => "out".to_owned(),
    }
}
