//! From configuration and health to what the data path and the health checks are to do.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use super::{conditions::Conditions, ramps::Ramps};
use crate::{
    config::{CheckKind, HealthCheck, Pool, Service, http::ProxyProtocol},
    desired::{Condition, DesiredBackend, DesiredLocal, DesiredPool, DesiredService},
    health::{Check, Kind, Retarget, Target},
};

/// The pool that serves a service now: its own, or its fallback where that is down.
pub(super) fn serving(service: &Service, is_down: impl Fn(&str) -> bool) -> &String {
    let fallback = service.fallback_pool.as_ref();
    fallback
        .filter(|_| is_down(&service.pool))
        .unwrap_or(&service.pool)
}

/// What the proxy is to do for a service that this pool serves.
pub(super) fn local(service: &Service, pool: &str) -> DesiredLocal {
    DesiredLocal {
        address: service.address,
        port: service.port,
        pool: pool.to_owned(),
    }
}

/// What the data path is to do for a service that this pool serves.
pub(super) fn service(service: &Service, pool: &str) -> DesiredService {
    let others = service.pools().filter(|other| *other != pool);
    DesiredService {
        address: service.address,
        port: service.port,
        protocol: service.protocol,
        mode: service.mode,
        pool: pool.to_owned(),
        other_pools: others.map(str::to_owned).collect(),
        idle_timeout: service.idle_timeout(),
        algorithm: service.algorithm,
        affinity: service.affinity,
        tracking: service.tracking,
        on_death: service.on_backend_death,
        on_empty: service.on_no_backend,
    }
}

/// What the data path is to do with a pool's backends, in these conditions.
pub(super) fn pool(name: &str, pool: &Pool, conditions: &Conditions, ramps: &Ramps) -> DesiredPool {
    let backends = pool.backends.iter().map(|(backend, config)| {
        let condition = conditions.backends.get(backend);
        let desired = DesiredBackend {
            address: config.address.ip(),
            port: config.address.port(),
            // Whole numbers at every step of a ramp.
            weight: u32::from(config.weight) * ramps.step(name, backend),
            condition: condition.copied().unwrap_or(Condition::InUse),
        };
        (backend.clone(), desired)
    });
    backends.collect()
}

/// What the health checks are to check of a pool: of these backends, or of all.
pub(super) fn targets(
    name: &str,
    pool: Option<&Pool>,
    backends: Option<&BTreeSet<String>>,
) -> Vec<Retarget> {
    let check = pool.and_then(|pool| pool.health_check.as_ref());
    // Another port is another server's, who knows nothing of the header.
    let header = |check: &HealthCheck| match check.port {
        None => pool.and_then(|pool| pool.http.proxy_protocol),
        Some(_) => None,
    };
    let check = check.map(|check| (check.port, Arc::new(check_of(check, header(check)))));
    let target = |backend: &String| {
        let (port, check) = check.as_ref()?;
        let address = pool?.backends.get(backend)?.address;
        Some(Target {
            pool: name.to_owned(),
            backend: backend.clone(),
            address: SocketAddr::new(address.ip(), port.unwrap_or(address.port())),
            check: check.clone(),
        })
    };
    let retarget = |backend: Option<&String>, targets| Retarget {
        pool: name.to_owned(),
        backend: backend.cloned(),
        targets,
    };
    match backends {
        Some(backends) => backends
            .iter()
            .map(|backend| retarget(Some(backend), target(backend).into_iter().collect()))
            .collect(),
        None => {
            let all = pool.into_iter().flat_map(|pool| pool.backends.keys());
            vec![retarget(None, all.filter_map(target).collect())]
        }
    }
}

fn check_of(check: &HealthCheck, proxy_protocol: Option<ProxyProtocol>) -> Check {
    let kind = match check.kind {
        CheckKind::Tcp => Kind::Tcp,
        CheckKind::Http => Kind::Http {
            path: check.path().to_owned(),
            host: check.host.clone(),
            status: check.status().first..=check.status().last,
            body_contains: check.body_contains.clone(),
        },
    };
    Check {
        kind,
        interval: check.interval,
        jitter: u8::try_from(check.jitter_percent).unwrap_or(100),
        timeout: check.timeout,
        proxy_protocol,
        rise: check.rise,
        fall: check.fall,
    }
}
