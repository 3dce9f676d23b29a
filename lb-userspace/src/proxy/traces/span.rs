//! From a request that has ended to its span, named as OpenTelemetry's conventions for HTTP servers
//! say: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>.

use http::Version;
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId, Value,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::proxy::{access_log::Entry, headers::trace::Span};

/// The span of a request.
pub(super) fn data(span: &Span, entry: &Entry<'_>, scope: &InstrumentationScope) -> SpanData {
    let seen = entry.seen;
    let failed = entry.status >= 500 || entry.status == 0 || !entry.complete;
    SpanData {
        span_context: SpanContext::new(
            TraceId::from(span.trace),
            SpanId::from(span.id),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: span.parent.is_some(),
        span_kind: SpanKind::Server,
        name: match seen.route.as_str() {
            "" => seen.method.to_string(),
            route => format!("{} {route}", seen.method),
        }
        .into(),
        start_time: entry.began,
        end_time: entry.began + entry.total,
        attributes: attributes(entry),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: match failed {
            true => Status::error(""),
            false => Status::Unset,
        },
        instrumentation_scope: scope.clone(),
    }
}

fn attributes(entry: &Entry<'_>) -> Vec<KeyValue> {
    let seen = entry.seen;
    let mut all = Vec::with_capacity(16);
    let mut say = |key: &'static str, value: Value| all.push(KeyValue::new(key, value));
    say("http.request.method", seen.method.to_string().into());
    let scheme = if entry.tls.is_some() { "https" } else { "http" };
    say("url.scheme", scheme.into());
    let (path, query) = match seen.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (seen.target.as_str(), None),
    };
    say("url.path", path.to_owned().into());
    if let Some(query) = query {
        say("url.query", query.to_owned().into());
    }
    say("server.address", seen.host.clone().into());
    say("client.address", seen.client.to_string().into());
    say("network.protocol.version", version(seen.version).into());
    if let Some(agent) = &seen.user_agent {
        say("user_agent.original", agent.clone().into());
    }
    if entry.status > 0 {
        let status = i64::from(entry.status);
        say("http.response.status_code", status.into());
    }
    if entry.status >= 500 {
        say("error.type", entry.status.to_string().into());
    } else if !entry.complete {
        say("error.type", "incomplete".into());
    }
    say("http.request.body.size", length(entry.bytes_in));
    say("http.response.body.size", length(entry.bytes_out));
    say("weir.service", entry.service.to_owned().into());
    if !seen.route.is_empty() {
        say("weir.route", seen.route.clone().into());
    }
    if let Some((pool, backend)) = entry.backend {
        say("weir.pool", pool.to_owned().into());
        say("weir.backend", backend.to_owned().into());
        say("weir.retries", i64::from(entry.retries).into());
    }
    if let Some(id) = &seen.id {
        say("weir.request_id", id.clone().into());
    }
    all
}

fn length(bytes: u64) -> Value {
    i64::try_from(bytes).unwrap_or(i64::MAX).into()
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}
