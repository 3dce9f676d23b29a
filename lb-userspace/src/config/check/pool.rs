//! Rules of one pool.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::{Problems, health, http};
use crate::config::{Backend, Pool, problem::join};

/// `vips`: of the services that name the pool, by address.
pub(super) fn check(
    problems: &mut Problems,
    name: &str,
    pool: &Pool,
    vips: Option<&BTreeMap<IpAddr, &str>>,
) {
    let path = join("pools", name);
    settings(problems, name, pool);
    let mut seen: BTreeMap<SocketAddr, String> = BTreeMap::new();
    for (name, backend) in &pool.backends {
        let path = join(&join(&path, "backends"), name);
        self::backend(problems, &path, name, backend);
        let address = backend.address;
        let field = join(&path, "address");
        if let Some(service) = vips.and_then(|vips| vips.get(&address.ip())) {
            let vip = join("services", service);
            problems.add(
                &field,
                address,
                format!("an address other than the VIP of {vip}"),
            );
        }
        if let Some(other) = seen.get(&address) {
            problems.add(
                &field,
                address,
                format!("each address and port only once: {other} has it"),
            );
        } else {
            seen.insert(address, path);
        }
    }
}

/// All but the backends.
pub(super) fn settings(problems: &mut Problems, name: &str, pool: &Pool) {
    let path = join("pools", name);
    problems.check_name(&path, name);
    if let Some(check) = &pool.health_check {
        health::check(problems, &join(&path, "health_check"), check);
    }
    let floor = u32::from(pool.health_floor_percent);
    problems.check_number(&path, "health_floor_percent", floor);
    if let Some(slow_start) = pool.slow_start {
        problems.check_duration(&path, "slow_start", slow_start);
    }
    http::pool(problems, &join(&path, "http"), &pool.http);
}

/// A backend by itself, which is called `path`.
pub(super) fn backend(problems: &mut Problems, path: &str, name: &str, backend: &Backend) {
    problems.check_name(path, name);
    let address = backend.address;
    let field = join(path, "address");
    problems.check_host(field.clone(), address.ip(), address);
    if address.port() == 0 {
        problems.add(&field, address, "a port from 1 to 65535");
    }
}
