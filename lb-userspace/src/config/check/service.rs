//! Rules of one service and its pool.

use super::{Config, Problems, family};
use crate::{
    config::{
        Pool, Service,
        problem::{did_you_mean, join, listed},
    },
    desired::Mode,
};

pub(super) fn check(problems: &mut Problems, config: &Config, name: &str, service: &Service) {
    let path = join("services", name);
    problems.check_name(&path, name);
    problems.check_host(join(&path, "address"), service.address, service.address);
    problems.check_number(&path, "port", service.port.into());
    if let Some(timeout) = service.idle_timeout {
        problems.check_duration(&path, "idle_timeout", timeout);
    }
    match config.pools.get(&service.pool) {
        Some(pool) => fits(problems, &join(&path, "pool"), service, pool),
        None => {
            let guess = did_you_mean(&service.pool, config.pools.keys().map(String::as_str));
            let expected = format!("a pool's name: {}{guess}", listed(config.pools.keys()));
            problems.add(join(&path, "pool"), &service.pool, expected);
        }
    }
}

/// A pool's backends, as a service needs them.
fn fits(problems: &mut Problems, field: &str, service: &Service, pool: &Pool) {
    let ours = family(service.address);
    let foreign: Vec<&String> = (pool.backends.iter())
        .filter(|(_, backend)| family(backend.address.ip()) != ours)
        .map(|(name, _)| name)
        .collect();
    if !foreign.is_empty() {
        problems.add(
            field,
            &service.pool,
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
            &service.pool,
            format!(
                "a pool of backends on port {}, as a dsr service does not change ports; on others: {}",
                service.port,
                listed(elsewhere)
            ),
        );
    }
}
