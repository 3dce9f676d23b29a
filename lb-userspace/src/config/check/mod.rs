//! The rules that types cannot hold.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
    net::IpAddr,
    time::Duration,
};

use humantime_serde::re::humantime::format_duration;

use super::{Config, Problems, Size, bounds, problem::join};

mod agent;
mod change;
mod ha;
mod health;
mod http;
mod pool;
mod routes;
mod service;
mod shared;
mod sync;
mod tls;

pub(super) use self::change::may_break;

impl Config {
    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    ///
    /// All that is wrong, not just the first.
    pub fn check(&self) -> Result<(), Problems> {
        let mut problems = Problems::default();
        agent::check(&mut problems, self);
        let mut vips: HashMap<&str, BTreeMap<IpAddr, &str>> = HashMap::new();
        for (name, service) in &self.services {
            for pool in service.pools() {
                let vips = vips.entry(pool).or_default();
                vips.insert(service.address, name);
            }
        }
        for (name, pool) in &self.pools {
            pool::check(&mut problems, name, pool, vips.get(name.as_str()));
        }
        for (name, service) in &self.services {
            service::check(&mut problems, self, name, service);
        }
        shared::check(&mut problems, self);
        ha::check(&mut problems, self);
        match problems.0.is_empty() {
            true => Ok(()),
            false => Err(problems),
        }
    }
}

impl Problems {
    /// A number within its field's bounds.
    fn check_number(&mut self, path: &str, key: &str, value: u32) {
        if !bounds::number(key).contains(&value) {
            self.add(join(path, key), value, bounds::say_number(key));
        }
    }

    /// A duration within its field's bounds.
    fn check_duration(&mut self, path: &str, key: &str, value: Duration) {
        if !bounds::duration(key).contains(&value) {
            self.add(
                join(path, key),
                format_duration(value),
                bounds::say_duration(key),
            );
        }
    }

    /// A lease, of the kernel's or etcd's.
    fn check_lease(&mut self, path: &str, lease: Duration) {
        self.check_duration(path, "lease", lease);
        if bounds::duration("lease").contains(&lease) && lease.subsec_nanos() != 0 {
            let expected = "whole seconds, as leases are counted in them";
            self.add(join(path, "lease"), format_duration(lease), expected);
        }
    }

    /// A size within its field's bounds.
    fn check_size(&mut self, path: &str, key: &str, value: Size) {
        if !bounds::size(key).contains(&value) {
            self.add(join(path, key), value, bounds::say_size(key));
        }
    }

    /// The kernel's name of an interface. Whether it can be one.
    fn check_interface(&mut self, field: String, name: &str) -> bool {
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let ok =
            (1..=15).contains(&name.len()) && !name.contains(bad) && ![".", ".."].contains(&name);
        if !ok {
            self.add(
                field,
                name,
                "an interface's name: 1 to 15 bytes without '/', ':' and spaces",
            );
        }
        ok
    }

    /// The name of a service, pool or backend.
    fn check_name(&mut self, path: &str, name: &str) {
        let mut bytes = name.bytes();
        let ok = name.len() <= 64
            && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
            && bytes.all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !ok {
            self.add(
                path,
                name,
                "a name of 1 to 64 letters, digits, '.', '_' and '-' that begins with a letter or digit",
            );
        }
    }

    /// An address that packets can be sent to, given as `value`.
    fn check_host(&mut self, field: String, address: IpAddr, value: impl Display) {
        if let Some(wrong) = no_host(address) {
            self.add(field, value, format!("the address of a host, not {wrong}"));
        }
    }
}

/// Why an address cannot be a VIP, a backend or a source.
fn no_host(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("the unspecified one");
    }
    if address.is_multicast() {
        return Some("a multicast one");
    }
    if address.is_loopback() {
        return Some("a loopback one");
    }
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast one"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4 one in IPv6 form"),
        // It means nothing without an interface.
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local one"),
        _ => None,
    }
}

/// `IPv4` or `IPv6`.
fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}
