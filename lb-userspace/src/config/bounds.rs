//! Ranges of numbers, sizes and durations by the name of their field, and how errors say them.

use std::{ops::RangeInclusive, time::Duration};

use humantime_serde::re::humantime::format_duration;

use super::Size;

/// What a number may be.
pub(super) fn number(key: &str) -> RangeInclusive<u32> {
    match key {
        "port" | "ports" | "services" => 1..=65_535,
        "weight" => 0..=65_535,
        "jitter_percent" | "health_floor_percent" => 0..=100,
        "rise" | "fall" => 1..=100,
        "vrid" | "priority" | "unicast_min_ttl" => 1..=255,
        "lower_by" => 1..=254,
        "backends" => 1..=1_000_000,
        "flows" => 1..=1 << 24,
        "workers" => 0..=1024,
        "status" => 200..=599,
        "statuses" => 500..=599,
        "attempts" => 0..=10,
        "budget_percent" => 0..=100,
        "percent" => 1..=100,
        "headers" => 1..=1000,
        "streams" | "errors" | "failures" => 1..=10_000,
        "latency_factor" => 2..=1000,
        "keep_idle" => 0..=10_000,
        "one_in"
        | "queue"
        | "requests"
        | "burst"
        | "connections"
        | "pending"
        | "connections_per_client" => 1..=1_000_000,
        "requests_per_connection" => 1..=1_000_000_000,
        _ => 0..=u32::MAX,
    }
}

/// What a duration may be.
pub(super) fn duration(key: &str) -> RangeInclusive<Duration> {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    match key {
        "interval" => Duration::from_millis(50)..=HOUR,
        "timeout" => Duration::from_millis(10)..=HOUR,
        "advert_interval" => Duration::from_millis(100)..=Duration::from_secs(40),
        "preempt_delay" => Duration::ZERO..=HOUR,
        "grace" => Duration::ZERO..=Duration::from_secs(600),
        "lease" => Duration::from_secs(1)..=Duration::from_secs(600),
        "announce_interval" => Duration::from_secs(1)..=HOUR,
        "slow_start" => Duration::from_secs(1)..=HOUR,
        "idle_timeout" | "affinity" | "deadline" => Duration::from_secs(1)..=7 * 24 * HOUR,
        "handshake" | "header" | "body" | "keepalive" | "connect" | "response" | "idle"
        | "tunnel" | "drain" | "total" | "hedge_after" => Duration::from_millis(10)..=24 * HOUR,
        "per" | "retry_after" | "max_rest" => Duration::from_secs(1)..=24 * HOUR,
        "rest" => Duration::from_secs(1)..=HOUR,
        // Browsers cut what is longer.
        "max_age" => Duration::from_secs(1)..=400 * 24 * HOUR,
        _ => Duration::ZERO..=Duration::MAX,
    }
}

/// What a size may be, in bytes.
pub(super) fn size(key: &str) -> RangeInclusive<Size> {
    match key {
        "header_size" => Size::kib(1)..=Size::kib(1024),
        "body_buffer" => Size(0)..=Size::kib(16 * 1024),
        _ => Size(0)..=Size(u64::MAX),
    }
}

pub(super) fn say_number(key: &str) -> String {
    let range = number(key);
    format!("a whole number from {} to {}", range.start(), range.end())
}

pub(super) fn say_size(key: &str) -> String {
    let range = size(key);
    format!(
        r#"a size from {} to {}, such as 512, "64KiB" or "1MiB""#,
        range.start(),
        range.end()
    )
}

pub(super) fn say_duration(key: &str) -> String {
    let range = duration(key);
    format!(
        r#"a duration from {} to {}, such as "500ms", "2s" or "15m""#,
        format_duration(*range.start()),
        format_duration(*range.end())
    )
}
