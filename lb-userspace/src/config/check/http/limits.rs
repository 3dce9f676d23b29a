//! Rules of how much and how often clients may ask.

use super::Problems;
use crate::config::{
    http::{Limits, RateLimit},
    problem::join,
};

/// Rate limits of a service or route.
const RATES: usize = 8;

pub(super) fn check(problems: &mut Problems, path: &str, limits: &Limits) {
    problems.check_number(path, "headers", limits.headers);
    problems.check_size(path, "header_size", limits.header_size);
    problems.check_number(path, "streams", limits.streams);
    for (key, value) in [
        ("requests_per_connection", limits.requests_per_connection),
        ("connections_per_client", limits.connections_per_client),
    ] {
        if let Some(value) = value {
            problems.check_number(path, key, value);
        }
    }
}

pub(super) fn rates(problems: &mut Problems, path: &str, rates: &[RateLimit]) {
    if rates.len() > RATES {
        let value = format!("{} limits", rates.len());
        problems.add(
            join(path, "rate_limits"),
            value,
            format!("at most {RATES} limits"),
        );
    }
    for (index, rate) in rates.iter().enumerate() {
        let path = format!("{path}.rate_limits[{index}]");
        problems.check_number(&path, "requests", rate.requests);
        problems.check_duration(&path, "per", rate.per);
        if let Some(burst) = rate.burst {
            problems.check_number(&path, "burst", burst);
        }
    }
}
