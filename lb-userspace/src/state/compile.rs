//! From configuration and health to what the data path and the health checks are to do.

use std::{collections::BTreeMap, net::SocketAddr};

use super::health::Verdicts;
use crate::{
    config::{CheckKind, Config, HealthCheck},
    desired::{Desired, DesiredBackend, DesiredService},
    health::{Check, Kind, Target},
};

/// What the data path is to do.
pub(super) fn desired(config: &Config, verdicts: &Verdicts) -> Desired {
    let services = config.services.iter().map(|(name, service)| {
        let desired = DesiredService {
            address: service.address,
            port: service.port,
            protocol: service.protocol,
            mode: service.mode,
            pool: service.pool.clone(),
            idle_timeout: service.idle_timeout(),
        };
        (name.clone(), desired)
    });
    let pools = config.pools.iter().map(|(name, pool)| {
        let usable = verdicts.usable(name, pool);
        let backends = pool.backends.iter().map(|(name, backend)| {
            let desired = DesiredBackend {
                address: backend.address.ip(),
                port: backend.address.port(),
                weight: u32::from(backend.weight),
                alive: usable(name),
            };
            (name.clone(), desired)
        });
        (name.clone(), backends.collect::<BTreeMap<_, _>>())
    });
    Desired {
        services: services.collect(),
        pools: pools.collect(),
        source_addresses: config.agent.full_nat.addresses.clone(),
        source_ports: config.agent.full_nat.ports,
    }
}

/// What the health checks are to check.
pub(super) fn targets(config: &Config) -> Vec<Target> {
    let mut targets = Vec::new();
    for (pool_name, pool) in &config.pools {
        let Some(check) = &pool.health_check else {
            continue;
        };
        for (name, backend) in &pool.backends {
            let port = check.port.unwrap_or(backend.address.port());
            targets.push(Target {
                pool: pool_name.clone(),
                backend: name.clone(),
                address: SocketAddr::new(backend.address.ip(), port),
                check: check_of(check),
            });
        }
    }
    targets
}

fn check_of(check: &HealthCheck) -> Check {
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
        rise: check.rise,
        fall: check.fall,
    }
}
