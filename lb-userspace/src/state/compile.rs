//! From configuration and health to what the data path and the health checks are to do.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{conditions::Conditions, ramps::Ramps};
use crate::{
    config::{CheckKind, Config, HealthCheck},
    desired::{Condition, Desired, DesiredBackend, DesiredLocal, DesiredService, Mode},
    health::{Check, Kind, Target},
};

/// What the data path is to do, for pools in these conditions.
pub(super) fn desired(
    config: &Config,
    conditions: &BTreeMap<String, Conditions>,
    ramps: &Ramps,
) -> Desired {
    let is_down = |pool: &str| conditions.get(pool).is_some_and(|pool| pool.down);
    let mut services = BTreeMap::new();
    let mut local = BTreeMap::new();
    for (name, service) in &config.services {
        let fallback = service.fallback_pool.as_ref();
        let pool = fallback
            .filter(|_| is_down(&service.pool))
            .unwrap_or(&service.pool);
        if service.mode == Mode::Local {
            let desired = DesiredLocal {
                address: service.address,
                port: service.port,
                pool: pool.clone(),
            };
            local.insert(name.clone(), desired);
            continue;
        }
        let others = service.pools().filter(|other| *other != pool);
        let desired = DesiredService {
            address: service.address,
            port: service.port,
            protocol: service.protocol,
            mode: service.mode,
            pool: pool.clone(),
            other_pools: others.map(str::to_owned).collect(),
            idle_timeout: service.idle_timeout(),
            algorithm: service.algorithm,
            affinity: service.affinity,
            tracking: service.tracking,
            on_death: service.on_backend_death,
            on_empty: service.on_no_backend,
        };
        services.insert(name.clone(), desired);
    }
    let pools = config.pools.iter().map(|(name, pool)| {
        let conditions = conditions.get(name);
        let backends = pool.backends.iter().map(|(backend, config)| {
            let condition = conditions.and_then(|pool| pool.backends.get(backend));
            let desired = DesiredBackend {
                address: config.address.ip(),
                port: config.address.port(),
                // Whole numbers at every step of a ramp.
                weight: u32::from(config.weight) * ramps.step(name, backend),
                condition: condition.copied().unwrap_or(Condition::InUse),
            };
            (backend.clone(), desired)
        });
        (name.clone(), backends.collect::<BTreeMap<_, _>>())
    });
    Desired {
        services,
        local,
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
