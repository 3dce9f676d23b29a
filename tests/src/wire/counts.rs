//! What the data path has counted.

use std::collections::BTreeMap;

use lb_common::reason::Reason;
use lb_userspace::dataplane::Counters;

/// What the counters count, by whom and what.
pub type Counts = BTreeMap<String, u64>;

/// A packet dropped on a service's account; an empty name: on nobody's.
pub fn dropped(service: &str, reason: Reason) -> Counts {
    Counts::from([(format!("{service} dropped: {}", reason.name()), 1)])
}

/// A packet of so many bytes, forwarded on a service's account.
pub fn forwarded(service: &str, bytes: u64) -> Counts {
    let mut counts = Counts::new();
    for whose in [service, "backends"] {
        counts.insert(format!("{whose} packets"), 1);
        counts.insert(format!("{whose} bytes"), bytes);
    }
    counts
}

/// Every counter that is not zero.
pub(crate) fn counts(counters: &Counters) -> Counts {
    let mut all = Counts::new();
    let mut add = |key: String, count: u64| *all.entry(key).or_default() += count;
    for (name, service) in &counters.services {
        add(format!("{name} packets"), service.traffic.packets);
        add(format!("{name} bytes"), service.traffic.bytes);
        add(format!("{name} connections"), service.traffic.connections);
        for (reason, &count) in &service.drops {
            add(format!("{name} dropped: {reason}"), count);
        }
    }
    for backend in counters.backends.values().flat_map(BTreeMap::values) {
        add("backends packets".to_owned(), backend.traffic.packets);
        add("backends bytes".to_owned(), backend.traffic.bytes);
        add(
            "backends connections".to_owned(),
            backend.traffic.connections,
        );
    }
    for (reason, &count) in &counters.unmatched_drops {
        add(format!(" dropped: {reason}"), count);
    }
    all
}

/// What has been counted since.
pub(crate) fn difference(before: &Counts, after: &Counts) -> Counts {
    let since = |(key, &count): (&String, &u64)| {
        let grown = count - before.get(key).copied().unwrap_or(0);
        (grown != 0).then(|| (key.clone(), grown))
    };
    after.iter().filter_map(since).collect()
}
