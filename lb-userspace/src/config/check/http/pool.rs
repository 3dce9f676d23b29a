//! Rules of how the proxy speaks to backends.

use super::{Problems, tls};
use crate::config::{
    http::{Outliers, PoolHttp},
    problem::join,
};

pub(in crate::config::check) fn check(problems: &mut Problems, path: &str, http: &PoolHttp) {
    problems.check_number(path, "keep_idle", http.keep_idle);
    problems.check_duration(path, "keepalive", http.keepalive);
    let breaker = &http.circuit_breaker;
    for (key, value) in [
        ("connections", breaker.connections),
        ("pending", breaker.pending),
        ("requests", breaker.requests),
    ] {
        if let Some(value) = value {
            problems.check_number(&join(path, "circuit_breaker"), key, value);
        }
    }
    if let Some(outliers) = &http.outliers {
        self::outliers(problems, &join(path, "outliers"), outliers);
    }
    if let Some(backend) = &http.tls {
        tls::backend(problems, &join(path, "tls"), backend);
    }
}

fn outliers(problems: &mut Problems, path: &str, outliers: &Outliers) {
    for (key, value) in [
        ("errors", outliers.errors),
        ("failures", outliers.failures),
        ("latency_factor", outliers.latency_factor),
    ] {
        if let Some(value) = value {
            problems.check_number(path, key, value);
        }
    }
    problems.check_duration(path, "rest", outliers.rest);
    problems.check_duration(path, "max_rest", outliers.max_rest);
}
