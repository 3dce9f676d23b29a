//! Rules of the agent's own settings.

use std::{collections::BTreeSet, os::unix::ffi::OsStrExt};

use http::Uri;

use super::{Config, Problems};
use crate::config::{
    Admin, FullNat, Interface, Limits, Pin, Traces, TracesProtocol, problem::join,
};
use crate::takeover;

/// Bytes of a Unix socket's path: `sockaddr_un` less the final zero, and what the name of the
/// other socket is longer by.
const SOCKET_PATH: usize = 107 - takeover::SUFFIX.len();
/// `full-nat` source addresses.
const SOURCES: usize = 256;

pub(super) fn check(problems: &mut Problems, config: &Config) {
    interfaces(problems, &config.agent.interfaces);
    limits(problems, config, &config.agent.limits);
    pin(problems, &config.agent.pin);
    admin(problems, &config.agent.admin);
    full_nat(problems, config, &config.agent.full_nat);
    problems.check_number("agent.proxy", "workers", config.agent.proxy.workers);
    if let Some(traces) = &config.agent.traces {
        self::traces(problems, traces);
    }
}

fn traces(problems: &mut Problems, traces: &Traces) {
    const PATH: &str = "agent.traces";
    let uri = traces.endpoint.parse::<Uri>().ok();
    let http = traces.protocol == TracesProtocol::Http;
    let usable = uri.is_some_and(|uri| {
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let path = http || matches!(uri.path(), "" | "/");
        scheme && uri.port().is_some() && path && uri.query().is_none()
    });
    if !usable {
        let expected = match http {
            true => {
                "where a collector takes OTLP over HTTP, as http://HOST:PORT or https://HOST:PORT \
                 (it listens on 4318 normally), with a path where that is not /v1/traces"
            }
            false => {
                "where a collector takes OTLP over gRPC, as http://HOST:PORT or https://HOST:PORT \
                 (it listens on 4317 normally)"
            }
        };
        problems.add(join(PATH, "endpoint"), &traces.endpoint, expected);
    }
    if traces.service_name.is_empty() {
        problems.add(join(PATH, "service_name"), "", "a name");
    }
    problems.check_number(PATH, "queue", traces.queue);
}

fn interfaces(problems: &mut Problems, interfaces: &[Interface]) {
    if interfaces.is_empty() {
        problems.add("agent.interfaces", "[]", "at least one interface");
    }
    let mut seen = BTreeSet::new();
    for (index, Interface { name, .. }) in interfaces.iter().enumerate() {
        let field = format!("agent.interfaces[{index}].name");
        if problems.check_interface(field.clone(), name) && !seen.insert(name) {
            problems.add(field, name, "each interface only once");
        }
    }
}

fn limits(problems: &mut Problems, config: &Config, limits: &Limits) {
    const PATH: &str = "agent.limits";
    problems.check_number(PATH, "services", limits.services);
    problems.check_number(PATH, "backends", limits.backends);
    problems.check_number(PATH, "flows", limits.flows);
    let backends = config.pools.values().map(|pool| pool.backends.len()).sum();
    for (key, what, used, limit) in [
        (
            "services",
            "services",
            config.services.len(),
            limits.services,
        ),
        ("backends", "pools", backends, limits.backends),
    ] {
        if used > limit as usize {
            let expected = format!("at most {limit} {key}, as {} says", join(PATH, key));
            problems.add(what, format!("{used} {key}"), expected);
        }
    }
}

fn pin(problems: &mut Problems, pin: &Pin) {
    let Some(directory) = pin.directory() else {
        return;
    };
    // Such a file system has no names with a dot.
    let name = directory.file_name().unwrap_or_default();
    if !directory.is_absolute() || name.is_empty() || name.as_bytes().contains(&b'.') {
        problems.add(
            "agent.pin",
            directory.display(),
            "an absolute path without a dot in its last name, in a BPF file system; or nothing",
        );
    }
}

fn admin(problems: &mut Problems, admin: &Admin) {
    let socket = &admin.socket;
    if !socket.is_absolute() || socket.as_os_str().as_bytes().len() > SOCKET_PATH {
        problems.add(
            "agent.admin.socket",
            socket.display(),
            format!("an absolute path of at most {SOCKET_PATH} bytes"),
        );
    }
}

fn full_nat(problems: &mut Problems, config: &Config, full_nat: &FullNat) {
    const PATH: &str = "agent.full_nat";
    let lists = [
        ("addresses", &full_nat.addresses),
        ("peer_addresses", &full_nat.peer_addresses),
    ];
    let mut seen = BTreeSet::new();
    let mut count = 0;
    for (key, addresses) in lists {
        count += addresses.len();
        if count > SOURCES && !addresses.is_empty() {
            let value = format!("{} addresses", addresses.len());
            let expected = match key {
                "addresses" => format!("at most {SOURCES} addresses"),
                _ => format!("at most {SOURCES} addresses, with {PATH}.addresses"),
            };
            problems.add(join(PATH, key), value, expected);
        }
        for (index, address) in addresses.iter().enumerate() {
            let field = format!("{PATH}.{key}[{index}]");
            if !seen.insert(address) {
                problems.add(&field, address, "each address only once");
            }
            problems.check_host(field, *address, address);
        }
    }
    let (first, last) = full_nat.ports;
    if first == 0 || first > last {
        problems.add(
            join(PATH, "ports"),
            format!("[{first}, {last}]"),
            "[first, last], with first from 1 to last",
        );
    }
    // A backend's answer to such a source would be taken for a client's packet.
    for (name, service) in &config.services {
        if seen.contains(&service.address) && (first..=last).contains(&service.port) {
            problems.add(
                format!("{}.port", join("services", name)),
                service.port,
                format!(
                    "a port outside {first} to {last}, as {} is in {PATH}.{}",
                    service.address,
                    match full_nat.addresses.contains(&service.address) {
                        true => "addresses",
                        false => "peer_addresses",
                    }
                ),
            );
        }
    }
}
