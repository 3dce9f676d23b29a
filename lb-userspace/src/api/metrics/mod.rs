//! `/metrics`: what there is to count, for Prometheus, from the same views as the API's answers.

mod families;
mod ha;
mod http;
mod routes;
mod shared;

use std::{collections::BTreeMap, fmt};

use axum::{
    Router,
    extract::State as Extract,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    registry::Registry,
};
use tokio::sync::watch;

use self::families::{Families, Sample};
use super::Error;
use crate::{
    dataplane::TrafficCounters,
    events::{self, Kind},
    ha::{GroupView, Ha, routes::RoutesView, sync::PeersView},
    shared::SharedView,
    state::{BackendView, PoolView, ServiceView, State, StatusView},
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whom the metrics are asked of.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) state: State,
    pub(super) ha: Ha,
    pub(super) peers: Option<watch::Receiver<PeersView>>,
    pub(super) routes: watch::Receiver<RoutesView>,
}

pub(super) fn router(sources: Sources) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(sources)
}

async fn metrics(Extract(sources): Extract<Sources>) -> Result<Response, Error> {
    let Sources {
        state,
        ha,
        peers,
        routes,
    } = sources;
    let shared = state.shared();
    let seen = Snapshot {
        status: state.status().await?,
        services: state.services().await?,
        pools: state.pools().await?,
        groups: ha.view().await,
        peers: peers
            .map(|peers| peers.borrow().clone())
            .unwrap_or_default(),
        routes: routes.borrow().clone(),
        shared,
        events: events::counts(),
    };
    let text = render(seen).map_err(anyhow::Error::from)?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

fn render(seen: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(seen));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Snapshot {
    status: StatusView,
    services: BTreeMap<String, ServiceView>,
    pools: BTreeMap<String, PoolView>,
    groups: BTreeMap<String, GroupView>,
    peers: PeersView,
    routes: RoutesView,
    shared: Option<SharedView>,
    events: BTreeMap<Kind, u64>,
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.agent(&mut families)?;
        self.services(&mut families)?;
        self.pools(&mut families)?;
        self.flows(&mut families)?;
        http::services(&mut families, &self.services)?;
        http::backends(&mut families, &self.pools)?;
        ha::groups(&mut families, &self.groups)?;
        ha::peers(&mut families, &self.peers)?;
        routes::routes(&mut families, &self.routes)?;
        (self.shared.iter()).try_for_each(|view| shared::metrics(view, &mut families))
    }
}

impl Snapshot {
    fn agent(&self, families: &mut Families<'_>) -> fmt::Result {
        let status = &self.status;
        families.gauge(
            "weir_build",
            "1, with the agent's version",
            [([("version", status.version.as_str())], 1)],
        )?;
        families.gauge(
            "weir_uptime_seconds",
            "Since the agent started",
            [([], status.uptime_seconds)],
        )?;
        let events: Vec<_> = (self.events.iter())
            .map(|(kind, count)| (kind.to_string(), *count))
            .collect();
        families.counter(
            "weir_events",
            "What has happened to this node, by what it is about: see /v1/events",
            (events.iter()).map(|(kind, count)| ([("kind", kind.as_str())], *count)),
        )?;
        families.counter(
            "weir_unmatched_drops",
            "Packets dropped that no one service can be blamed for",
            (status.drops.iter()).map(|(reason, &count)| ([("reason", reason.as_ref())], count)),
        )?;
        let Some(traces) = &status.traces else {
            return Ok(());
        };
        let outcomes = [
            ("exported", traces.exported),
            ("dropped", traces.dropped),
            ("failed", traces.failed),
        ];
        families.counter(
            "weir_trace_spans",
            "Spans that the collector has, that were dropped as too many waited, and that the \
             collector did not take",
            outcomes.map(|(outcome, count)| ([("outcome", outcome)], count)),
        )
    }

    fn services(&self, families: &mut Families<'_>) -> fmt::Result {
        let services = || self.services.iter();
        for (name, help, part) in TRAFFIC {
            let name = format!("weir_service_{name}");
            let samples = services().map(|(service, view)| {
                let count = part(&view.counters.traffic);
                ([("service", service.as_str())], count)
            });
            families.counter(&name, &format!("{help} a service"), samples)?;
        }
        let drops = services().flat_map(|(service, view)| {
            (view.counters.drops.iter()).map(move |(reason, &count)| {
                let reason = ("reason", reason.as_ref());
                ([("service", service.as_str()), reason], count)
            })
        });
        families.counter("weir_service_drops", "Packets dropped, by reason", drops)?;
        families.gauge(
            "weir_service_slots",
            "Slots of a service's ring",
            services().map(|(name, view)| ([("service", &**name)], view.counters.slots as u64)),
        )?;
        families.gauge(
            "weir_service_tracked_slots",
            "Of them, those whose flows are remembered",
            services().map(|(name, view)| {
                let tracked = view.counters.tracked_slots as u64;
                ([("service", &**name)], tracked)
            }),
        )?;
        families.gauge(
            "weir_service_digest",
            "First 48 bits of the digest of a service's table: equal on nodes that choose the same",
            services().filter_map(|(name, view)| {
                let digits = view.counters.digest.get(..12)?;
                let digest = u64::from_str_radix(digits, 16).ok()?;
                Some(([("service", &**name)], digest))
            }),
        )
    }

    fn pools(&self, families: &mut Families<'_>) -> fmt::Result {
        for (name, help, part) in TRAFFIC {
            let name = format!("weir_backend_{name}");
            let help = format!("{help} a backend");
            families.counter(
                &name,
                &help,
                self.backends(|view| part(&view.counters.traffic)),
            )?;
        }
        families.gauge(
            "weir_backend_flows",
            "Remembered flows that live",
            self.backends(|view| view.counters.flows),
        )?;
        families.gauge(
            "weir_backend_open_connections",
            "Connections that least-connections services count",
            self.backends(|view| view.counters.open_connections),
        )?;
        let healthy = |status: &str| u64::from(["healthy", "unchecked"].contains(&status));
        families.gauge(
            "weir_backend_healthy",
            "1 where it is taken for healthy: its checks pass, for the majority where nodes agree, or \
             there are none",
            self.backends(|view| healthy(&view.health.status)),
        )?;
        families.gauge(
            "weir_backend_healthy_here",
            "1 where this node's own checks pass, or there are none",
            self.backends(|view| healthy(view.health.here())),
        )?;
        families.gauge(
            "weir_backend_in_use",
            "1 where it takes new flows",
            self.backends(|view| u64::from(view.in_use)),
        )?;
        families.gauge(
            "weir_pool_below_health_floor",
            "1 where so few are healthy that the failed are used too",
            (self.pools.iter())
                .map(|(pool, view)| ([("pool", &**pool)], u64::from(view.below_health_floor))),
        )
    }

    fn flows(&self, families: &mut Families<'_>) -> fmt::Result {
        let flows = &self.status.flows;
        families.gauge(
            "weir_flows",
            "Live flows in a table, as of a few seconds ago",
            [("tracked", flows.tracked), ("full_nat", flows.full_nat)]
                .map(|(table, count)| ([("table", table)], count)),
        )?;
        families.gauge(
            "weir_flows_limit",
            "Room in each table",
            [([], flows.limit)],
        )?;
        families.counter(
            "weir_flows_remembered",
            "Flows put into the table of tracked flows",
            [([], flows.remembered)],
        )?;
        families.counter(
            "weir_flows_evicted",
            "Tracked flows evicted before the agent saw them end",
            [([], flows.evicted)],
        )
    }

    fn backends(&self, value: impl Fn(&BackendView) -> u64) -> impl Iterator<Item = Sample<'_, 2>> {
        let all = self.pools.iter().flat_map(|(pool, view)| {
            let backends = view.backends.iter();
            backends.map(move |(name, view)| (pool.as_str(), name.as_str(), view))
        });
        all.map(move |(pool, name, view)| ([("pool", pool), ("backend", name)], value(view)))
    }
}

/// Names, help and values of what is counted of traffic.
#[expect(clippy::type_complexity, reason = "it is a table")]
const TRAFFIC: [(&str, &str, fn(&TrafficCounters) -> u64); 3] = [
    ("packets", "Packets forwarded from clients to", |traffic| {
        traffic.packets
    }),
    (
        "bytes",
        "Bytes of them, from the Ethernet header on, to",
        |traffic| traffic.bytes,
    ),
    (
        "connections",
        "TCP connections opened (SYNs) to",
        |traffic| traffic.connections,
    ),
];
