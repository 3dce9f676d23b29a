//! Rules of one service and its pool.

use super::{Config, Problems, family};
use crate::{
    config::{
        Pool, Service,
        problem::{did_you_mean, join, listed},
    },
    desired::{Mode, Protocol, Tracking},
};

pub(super) fn check(problems: &mut Problems, config: &Config, name: &str, service: &Service) {
    let path = join("services", name);
    problems.check_name(&path, name);
    problems.check_host(join(&path, "address"), service.address, service.address);
    problems.check_number(&path, "port", service.port.into());
    if let Some(timeout) = service.idle_timeout {
        problems.check_duration(&path, "idle_timeout", timeout);
    }
    if let Some(timeout) = service.affinity {
        problems.check_duration(&path, "affinity", timeout);
    }
    if service.tracking != Tracking::default() && service.protocol != Protocol::Udp {
        problems.add(
            join(&path, "tracking"),
            "flow",
            "it only with protocol udp: connections of tcp are always kept",
        );
    }
    check_pool(
        problems,
        config,
        &join(&path, "pool"),
        service,
        &service.pool,
    );
    if let Some(fallback) = &service.fallback_pool {
        let field = join(&path, "fallback_pool");
        if *fallback == service.pool {
            problems.add(&field, fallback, "another pool than `pool`");
        }
        check_pool(problems, config, &field, service, fallback);
    }
}

fn check_pool(
    problems: &mut Problems,
    config: &Config,
    field: &str,
    service: &Service,
    name: &str,
) {
    match config.pools.get(name) {
        Some(pool) => fits(problems, field, service, name, pool),
        None => {
            let guess = did_you_mean(name, config.pools.keys().map(String::as_str));
            let expected = format!("a pool's name: {}{guess}", listed(config.pools.keys()));
            problems.add(field, name, expected);
        }
    }
}

/// A pool's backends, as a service needs them.
fn fits(problems: &mut Problems, field: &str, service: &Service, name: &str, pool: &Pool) {
    let ours = family(service.address);
    let foreign: Vec<&String> = (pool.backends.iter())
        .filter(|(_, backend)| family(backend.address.ip()) != ours)
        .map(|(name, _)| name)
        .collect();
    if !foreign.is_empty() {
        problems.add(
            field,
            name,
            format!(
                "a pool of {ours} backends, as {} is; of the other family: {}",
                service.address,
                listed(foreign)
            ),
        );
    }
    if service.mode != Mode::Dsr {
        return;
    }
    // The packet keeps its ports.
    let elsewhere: Vec<&String> = (pool.backends.iter())
        .filter(|(_, backend)| backend.address.port() != service.port)
        .map(|(name, _)| name)
        .collect();
    if !elsewhere.is_empty() {
        problems.add(
            field,
            name,
            format!(
                "a pool of backends on port {}, as a dsr service does not change ports; on others: {}",
                service.port,
                listed(elsewhere)
            ),
        );
    }
}
