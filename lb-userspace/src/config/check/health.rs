//! Rules of a health check.

use axum::http::{HeaderValue, uri::PathAndQuery};

use super::Problems;
use crate::config::{CheckKind, HealthCheck, StatusRange, problem::join};

/// Bytes of the text that a body must contain.
const BODY_CONTAINS: usize = 1024;

pub(super) fn check(problems: &mut Problems, path: &str, check: &HealthCheck) {
    match check.kind {
        CheckKind::Tcp => only_http(problems, path, check),
        CheckKind::Http => http(problems, path, check),
    }
    if let Some(port) = check.port {
        problems.check_number(path, "port", port.into());
    }
    problems.check_duration(path, "interval", check.interval);
    problems.check_duration(path, "timeout", check.timeout);
    problems.check_number(path, "jitter_percent", check.jitter_percent);
    problems.check_number(path, "rise", check.rise);
    problems.check_number(path, "fall", check.fall);
}

/// Fields that a TCP check has no use for.
fn only_http(problems: &mut Problems, path: &str, check: &HealthCheck) {
    let status = check.status.map(String::from);
    for (key, value) in [
        ("path", &check.path),
        ("host", &check.host),
        ("status", &status),
        ("body_contains", &check.body_contains),
    ] {
        if let Some(value) = value {
            problems.add(join(path, key), value, "no such field with type \"tcp\"");
        }
    }
}

fn http(problems: &mut Problems, path: &str, check: &HealthCheck) {
    let valid = |path: &str| {
        path.starts_with('/')
            && !path.contains('#')
            && path.bytes().all(|b| b.is_ascii_graphic())
            && PathAndQuery::try_from(path).is_ok()
    };
    if let Some(value) = check.path.as_deref().filter(|path| !valid(path)) {
        problems.add(
            join(path, "path"),
            value,
            "a path that begins with '/', without spaces, control characters and '#'",
        );
    }
    let valid = |host: &str| {
        !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_graphic())
            && HeaderValue::from_str(host).is_ok()
    };
    if let Some(value) = check.host.as_deref().filter(|host| !valid(host)) {
        problems.add(
            join(path, "host"),
            value,
            "a host for the Host header, such as example.org or example.org:8080",
        );
    }
    let StatusRange { first, last } = check.status();
    if first < 100 || last > 599 || first > last {
        problems.add(
            join(path, "status"),
            check.status(),
            "codes from 100 to 599, the first not above the last",
        );
    }
    if let Some(text) = &check.body_contains
        && !(1..=BODY_CONTAINS).contains(&text.len())
    {
        problems.add(
            join(path, "body_contains"),
            text,
            format!("text of 1 to {BODY_CONTAINS} bytes"),
        );
    }
}
