//! Ranges of numbers and durations by the name of their field, and how errors say them.

use std::{ops::RangeInclusive, time::Duration};

use humantime_serde::re::humantime::format_duration;

/// What a number may be.
pub(super) fn number(key: &str) -> RangeInclusive<u32> {
    match key {
        "port" | "ports" | "services" => 1..=65_535,
        "weight" => 0..=65_535,
        "jitter_percent" | "health_floor_percent" => 0..=100,
        "rise" | "fall" => 1..=100,
        "backends" => 1..=1_000_000,
        "flows" => 1..=1 << 24,
        _ => 0..=u32::MAX,
    }
}

/// What a duration may be.
pub(super) fn duration(key: &str) -> RangeInclusive<Duration> {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    match key {
        "interval" => Duration::from_millis(50)..=HOUR,
        "timeout" => Duration::from_millis(10)..=HOUR,
        "slow_start" => Duration::from_secs(1)..=HOUR,
        "idle_timeout" | "affinity" | "deadline" => Duration::from_secs(1)..=7 * 24 * HOUR,
        _ => Duration::ZERO..=Duration::MAX,
    }
}

pub(super) fn say_number(key: &str) -> String {
    let range = number(key);
    format!("a whole number from {} to {}", range.start(), range.end())
}

pub(super) fn say_duration(key: &str) -> String {
    let range = duration(key);
    format!(
        r#"a duration from {} to {}, such as "500ms", "2s" or "15m""#,
        format_duration(*range.start()),
        format_duration(*range.end())
    )
}
