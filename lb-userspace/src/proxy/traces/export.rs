//! Sending spans on, many at a time.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::Context as _;
use http::Uri;
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
    tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use rustls::crypto::ring;
use tokio::{sync::mpsc, time::sleep};

use super::Counts;
use crate::config::{Traces as Config, TracesProtocol};

/// Spans that are sent at once.
const AT_ONCE: usize = 512;
/// How long the first of them waits for others.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the collector may take for them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects when there is something to send.
///
/// # Errors
///
/// The endpoint cannot be used.
pub(super) fn exporter(config: &Config) -> anyhow::Result<SpanExporter> {
    let exporter = match config.protocol {
        TracesProtocol::Grpc => over_grpc(config),
        TracesProtocol::Http => over_http(config),
    };
    let mut exporter =
        exporter.with_context(|| format!("agent.traces.endpoint, {}", config.endpoint))?;
    let resource = Resource::builder().with_service_name(config.service_name.clone());
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

fn is_encrypted(endpoint: &str) -> bool {
    endpoint.starts_with("https:")
}

fn over_grpc(config: &Config) -> anyhow::Result<SpanExporter> {
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&config.endpoint)
        .with_timeout(PATIENCE);
    if is_encrypted(&config.endpoint) {
        builder = builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    Ok(builder.build()?)
}

fn over_http(config: &Config) -> anyhow::Result<SpanExporter> {
    let endpoint: Uri = config.endpoint.parse()?;
    let path = match endpoint.path() {
        "" | "/" => "/v1/traces",
        path => path,
    };
    let authority = endpoint.authority().context("it names no host")?;
    let scheme = endpoint.scheme_str().unwrap_or("http");
    let mut builder = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{scheme}://{authority}{path}"))
        .with_timeout(PATIENCE);
    if is_encrypted(&config.endpoint) {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(ring::default_provider())?
            .https_only()
            .enable_http1()
            .build();
        builder = builder.with_http_client(HyperClient::new(connector, PATIENCE, None));
    }
    Ok(builder.build()?)
}

/// Sends until nobody has any more.
pub(super) async fn run(
    exporter: SpanExporter,
    mut spans: mpsc::Receiver<SpanData>,
    counts: Arc<Counts>,
) {
    let mut batch = Vec::new();
    let mut fails = false;
    while spans.recv_many(&mut batch, AT_ONCE).await > 0 {
        if batch.len() < AT_ONCE && !spans.is_closed() {
            sleep(PAUSE).await;
            while batch.len() < AT_ONCE
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
        }
        let count = batch.len() as u64;
        let sent = exporter.export(std::mem::take(&mut batch)).await;
        match &sent {
            Ok(()) => _ = counts.exported.fetch_add(count, Relaxed),
            Err(_) => _ = counts.failed.fetch_add(count, Relaxed),
        }
        match (sent, fails) {
            (Err(error), false) => tracing::warn!("spans cannot be exported: {error}"),
            (Ok(()), true) => tracing::info!("spans are exported again"),
            (sent, _) => {
                fails = sent.is_err();
                continue;
            }
        }
        fails = !fails;
    }
}
