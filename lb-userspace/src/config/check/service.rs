//! Rules of one service and its pool.

use humantime_serde::re::humantime::format_duration;

use super::{Config, Problems, family, http, tls};
use crate::{
    config::{
        Pool, Service,
        http::Http,
        problem::{did_you_mean, join, listed},
    },
    desired::{Algorithm, Mode, OnDeath, OnEmpty, Protocol, Tracking},
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
    match service.mode {
        Mode::Local => local(problems, config, &path, service),
        Mode::Nat | Mode::FullNat | Mode::Dsr => only_local(problems, &path, service),
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

/// What the HTTP proxy serves, and fields that it has no use for.
fn local(problems: &mut Problems, config: &Config, path: &str, service: &Service) {
    http::check(problems, config, &join(path, "http"), service);
    if let Some(tls) = &service.tls {
        tls::check(problems, config, &join(path, "tls"), service, tls);
    }
    if service.protocol != Protocol::Tcp {
        problems.add(join(path, "protocol"), "udp", "tcp, as mode local is HTTP");
    }
    let none = "no such field with mode local, which serves requests and not packets";
    if let Some(timeout) = service.idle_timeout {
        let value = format_duration(timeout);
        problems.add(join(path, "idle_timeout"), value, none);
    }
    if let Some(timeout) = service.affinity {
        let value = format_duration(timeout);
        problems.add(join(path, "affinity"), value, none);
    }
    if service.algorithm != Algorithm::default() {
        problems.add(join(path, "algorithm"), service.algorithm, none);
    }
    if service.on_backend_death != OnDeath::default() {
        problems.add(join(path, "on_backend_death"), "silent", none);
    }
    if service.on_no_backend != OnEmpty::default() {
        let expected = "no such field with mode local: http.unavailable is its answer";
        problems.add(join(path, "on_no_backend"), "drop", expected);
    }
}

/// Fields that only the HTTP proxy has a use for.
fn only_local(problems: &mut Problems, path: &str, service: &Service) {
    for (key, given) in [
        ("http", service.http != Http::default()),
        ("tls", service.tls.is_some()),
    ] {
        if given {
            let expected = format!("no such field with mode {}, but with local", service.mode);
            problems.add(join(path, key), "a table", expected);
        }
    }
}

pub(super) fn check_pool(
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
    if service.mode == Mode::Local {
        // Its connections to backends are its own: any family and port.
        return;
    }
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
