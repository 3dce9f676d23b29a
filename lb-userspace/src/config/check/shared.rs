//! Rules of what several services share.

use std::collections::BTreeMap;

use super::{Config, Problems, family};
use crate::{
    config::problem::{join, listed},
    desired::{Mode, Protocol},
};

pub(super) fn check(problems: &mut Problems, config: &Config) {
    vips(problems, config);
    nat_backends(problems, config);
    sources(problems, config);
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// One service an address, protocol and port.
fn vips(problems: &mut Problems, config: &Config) {
    let mut seen = BTreeMap::new();
    for (name, service) in &config.services {
        let path = join("services", name);
        let key = (service.address, service.protocol, service.port);
        if let Some(other) = seen.get(&key) {
            problems.add(
                join(&path, "address"),
                format!("{} {} port {}", key.0, word(key.1), key.2),
                format!("each address, protocol and port only once: {other} has it"),
            );
        } else {
            seen.insert(key, path);
        }
    }
}

/// A `nat` service's backend answers to its clients, and the way back is found by the backend's
/// address, protocol and port alone: no other service may rewrite for the same backend. `dsr`
/// backends answer from the VIP, and so do not count; nor do `local` services, which the
/// backends answer to this host.
fn nat_backends(problems: &mut Problems, config: &Config) {
    let mut users: BTreeMap<_, (&str, Mode)> = BTreeMap::new();
    // By the pair of services, so that a shared pool is one problem and not one a backend.
    let mut shared: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for (name, service) in &config.services {
        if matches!(service.mode, Mode::Dsr | Mode::Local) {
            continue;
        }
        let pools = service
            .pools()
            .filter_map(|pool| Some((pool, config.pools.get(pool)?)));
        let backends = pools.flat_map(|(name, pool)| {
            (pool.backends.iter()).map(move |(backend, at)| (name, backend, at))
        });
        for (pool, backend, at) in backends {
            let key = (at.address, service.protocol);
            let user = users.entry(key).or_insert((name, service.mode));
            let (other, mode) = *user;
            if service.mode == Mode::Nat {
                *user = (name, Mode::Nat);
            }
            if other != name && (mode == Mode::Nat || service.mode == Mode::Nat) {
                let path = join(&join(&join("pools", pool), "backends"), backend);
                let backend = format!("{path} ({} {})", at.address, word(service.protocol));
                shared.entry((name, other)).or_default().push(backend);
            }
        }
    }
    for ((name, other), backends) in shared {
        let service = &config.services[name];
        problems.add(
            format!("{}.pool", join("services", name)),
            &service.pool,
            format!(
                "backends that {} does not use, as a backend of a nat service serves no other nat or full-nat service; shared: {}",
                join("services", other),
                listed(backends)
            ),
        );
    }
}

/// `full-nat` services have something to send from.
fn sources(problems: &mut Problems, config: &Config) {
    let addresses = &config.agent.full_nat.addresses;
    let mut without: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, service) in &config.services {
        let ours = family(service.address);
        if service.mode == Mode::FullNat && !addresses.iter().any(|a| family(*a) == ours) {
            without
                .entry(ours)
                .or_default()
                .push(join("services", name));
        }
    }
    for (family, services) in without {
        problems.add(
            "agent.full_nat.addresses",
            format!("[{}]", listed(addresses)),
            format!(
                "at least one {family} address, for full-nat: {}",
                listed(services)
            ),
        );
    }
}
