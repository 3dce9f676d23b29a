//! What the HTTP proxy counts.

use std::{collections::BTreeMap, fmt};

use super::families::{Families, Row, Sample};
use crate::{
    proxy::{BackendHttpCounters, HttpCounters},
    state::{PoolView, ServiceView},
};

/// A class of answers, and how many there were of it.
type Class<T> = (&'static str, fn(&T) -> u64);

/// What was done for services.
pub(super) fn services(
    families: &mut Families<'_>,
    services: &BTreeMap<String, ServiceView>,
) -> fmt::Result {
    let all = || {
        let services = services.iter();
        services.filter_map(|(name, view)| Some((name.as_str(), view.http.as_ref()?)))
    };
    let samples = |of: fn(&HttpCounters) -> u64| {
        all().map(move |(name, http)| ([("service", name)], of(http)))
    };
    for (name, help, of) in SERVICE {
        families.counter(&format!("weir_http_{name}"), help, samples(of))?;
    }
    for (name, help, of) in NOW {
        families.gauge(&format!("weir_http_{name}"), help, samples(of))?;
    }
    let classes = all().flat_map(|(name, http)| {
        CLASSES.map(|(class, of)| ([("service", name), ("class", class)], of(http)))
    });
    families.counter("weir_http_responses", "Answers to clients", classes)?;
    families.counter(
        "weir_http_access_log_dropped_lines",
        "Lines not written as the disk was too slow, of all logs in the same place",
        services
            .iter()
            .filter_map(|(name, view)| Some(([("service", name.as_str())], view.log_dropped?))),
    )?;
    let certificates: Vec<(&str, String, String, i64)> = services
        .iter()
        .flat_map(|(name, view)| {
            view.certificates.iter().map(|certificate| {
                let file = certificate.file.display().to_string();
                let names = certificate.names.join(",");
                (name.as_str(), file, names, certificate.not_after)
            })
        })
        .collect();
    families.gauge(
        "weir_certificate_expiry_timestamp_seconds",
        "Last second of the certificates that clients are shown, since 1970",
        certificates.iter().map(|(service, file, names, until)| {
            let (file, names) = (("file", file.as_str()), ("names", names.as_str()));
            ([("service", *service), file, names], *until)
        }),
    )
}

/// What was asked of backends.
pub(super) fn backends(
    families: &mut Families<'_>,
    pools: &BTreeMap<String, PoolView>,
) -> fmt::Result {
    let all = || {
        pools.iter().flat_map(|(pool, view)| {
            let backends = view.backends.iter();
            backends.filter_map(move |(name, view)| {
                Some((pool.as_str(), name.as_str(), view.http.as_ref()?))
            })
        })
    };
    for (name, help, of) in BACKEND {
        let samples = all().map(|(pool, name, http)| -> Sample<'_, 2> {
            ([("pool", pool), ("backend", name)], of(http))
        });
        families.counter(&format!("weir_http_backend_{name}"), help, samples)?;
    }
    let classes = all().flat_map(|(pool, name, http)| {
        let labels = |class| [("pool", pool), ("backend", name), ("class", class)];
        BACKEND_CLASSES.map(|(class, of)| (labels(class), of(http)))
    });
    families.counter(
        "weir_http_backend_responses",
        "Answers of a backend",
        classes,
    )
}

const SERVICE: [Row<HttpCounters>; 10] = [
    ("connections", "Connections of clients", |http| {
        http.connections
    }),
    ("requests", "Requests of clients", |http| http.requests),
    ("own_answers", "Answers that Weir gave itself", |http| {
        http.own_answers
    }),
    (
        "malformed_requests",
        "Requests that were refused as no HTTP",
        |http| http.malformed,
    ),
    (
        "floods",
        "Connections of HTTP/2 that made work without asking for anything, and were closed",
        |http| http.floods,
    ),
    ("retries", "Tries after the first", |http| http.retries),
    (
        "retries_refused",
        "Retries that the budget did not allow",
        |http| http.retries_refused,
    ),
    ("tunnels", "Tunnels that were opened", |http| http.tunnels),
    ("request_bytes", "Bytes of requests' bodies", |http| {
        http.bytes_in
    }),
    ("response_bytes", "Bytes of answers' bodies", |http| {
        http.bytes_out
    }),
];

const NOW: [Row<HttpCounters>; 2] = [
    (
        "open_connections",
        "Connections of clients that are open",
        |http| http.open_connections,
    ),
    (
        "requests_in_flight",
        "Requests whose answer is not at its end",
        |http| http.requests_in_flight,
    ),
];

const CLASSES: [Class<HttpCounters>; 5] = [
    ("1xx", |http| http.responses_1xx),
    ("2xx", |http| http.responses_2xx),
    ("3xx", |http| http.responses_3xx),
    ("4xx", |http| http.responses_4xx),
    ("5xx", |http| http.responses_5xx),
];

const BACKEND: [Row<BackendHttpCounters>; 9] = [
    (
        "requests",
        "Requests to a backend, tries and retries alike",
        |http| http.requests,
    ),
    ("connections", "Connections to a backend", |http| {
        http.connections
    }),
    (
        "connect_failures",
        "Connections to a backend that could not be made",
        |http| http.connect_failures,
    ),
    (
        "failures",
        "Requests that broke at a backend before the end of the answer",
        |http| http.failures,
    ),
    (
        "timeouts",
        "Answers of a backend that did not come in time",
        |http| http.timeouts,
    ),
    (
        "ejections",
        "How often a backend was left out for a while as an outlier",
        |http| http.ejections,
    ),
    (
        "refused_by_breaker",
        "Requests that the circuit breaker kept away from a backend",
        |http| http.refused_by_breaker,
    ),
    (
        "request_bytes",
        "Bytes of requests' bodies to a backend",
        |http| http.bytes_in,
    ),
    (
        "response_bytes",
        "Bytes of answers' bodies from a backend",
        |http| http.bytes_out,
    ),
];

const BACKEND_CLASSES: [Class<BackendHttpCounters>; 4] = [
    ("2xx", |http| http.responses_2xx),
    ("3xx", |http| http.responses_3xx),
    ("4xx", |http| http.responses_4xx),
    ("5xx", |http| http.responses_5xx),
];
