//! Rules of shared addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use humantime_serde::re::humantime::format_duration;

use super::{Config, Problems, bounds, family, no_host};
use crate::config::{
    ha::{Checksum, Group, Track, TrackKind},
    problem::{did_you_mean, join, listed},
};

/// What fits into a frame of 1,500 bytes.
const MOST_V4: usize = 255;
const MOST_V6: usize = 90;

pub(super) fn check(problems: &mut Problems, config: &Config) {
    let groups = &config.ha.groups;
    let mut holders = BTreeMap::new();
    let mut routers = BTreeMap::new();
    for (name, group) in groups {
        let path = join("ha.groups", name);
        problems.check_name(&path, name);
        problems.check_number(&path, "vrid", group.vrid.into());
        problems.check_number(&path, "priority", group.priority.into());
        problems.check_interface(join(&path, "interface"), &group.interface);
        times(problems, &path, group);
        addresses(problems, &path, group, &mut holders);
        peers(problems, &path, group);
        let router = (&group.interface, group.vrid, group.is_ipv4());
        if let Some(other) = routers.insert(router, path.clone()) {
            let expected = format!("another than that of {other} on {}", group.interface);
            problems.add(join(&path, "vrid"), group.vrid, expected);
        }
        tracks(problems, config, &path, group);
    }
    together(problems, groups);
    problems.check_lease("ha.health", config.ha.health.lease);
    if let Some(sync) = &config.ha.sync {
        super::sync::check(problems, sync);
    }
    if let Some(routes) = &config.ha.routes {
        super::routes::check(problems, &config.ha, routes);
    }
}

fn times(problems: &mut Problems, path: &str, group: &Group) {
    problems.check_duration(path, "advert_interval", group.advert_interval);
    problems.check_duration(path, "announce_interval", group.announce_interval);
    problems.check_duration(path, "preempt_delay", group.preempt_delay);
    let interval = group.advert_interval;
    if bounds::duration("advert_interval").contains(&interval)
        && !interval.as_nanos().is_multiple_of(10_000_000)
    {
        problems.add(
            join(path, "advert_interval"),
            format_duration(interval),
            "whole hundredths of a second, as VRRP counts in them",
        );
    }
    if group.preempt_delay > Duration::ZERO && !group.preempt {
        problems.add(
            join(path, "preempt_delay"),
            format_duration(group.preempt_delay),
            "it only with preempt = true",
        );
    }
}

fn addresses<'a>(
    problems: &mut Problems,
    path: &str,
    group: &'a Group,
    holders: &mut BTreeMap<(IpAddr, &'a str), String>,
) {
    let field = join(path, "addresses");
    let most = if group.is_ipv4() { MOST_V4 } else { MOST_V6 };
    if !(1..=most).contains(&group.addresses.len()) {
        let value = match group.addresses.len() {
            0 => "[]".to_owned(),
            many => format!("{many} addresses"),
        };
        problems.add(&field, value, format!("1 to {most} addresses"));
    }
    for (index, virtual_address) in group.addresses.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let address = virtual_address.address;
        check_link_host(problems, field.clone(), address, virtual_address);
        if address.is_ipv4() != group.is_ipv4() {
            let expected = format!(
                "an {} address, as the first is; the other family is a group of its own, which \
                 the same `sync` lets fail over together with this",
                family(group.addresses[0].address)
            );
            problems.add(&field, virtual_address, expected);
        }
        if let Some(other) = holders.insert((address, &group.interface), path.to_owned()) {
            let expected = format!("each address only once: {other} has it");
            problems.add(field, virtual_address, expected);
        }
    }
}

/// As other hosts' addresses, but link-local ones too: there is an interface.
fn check_link_host(
    problems: &mut Problems,
    field: String,
    address: IpAddr,
    value: impl std::fmt::Display,
) {
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if let Some(wrong) = no_host(address).filter(|_| !link_local) {
        problems.add(field, value, format!("the address of a host, not {wrong}"));
    }
}

fn peers(problems: &mut Problems, path: &str, group: &Group) {
    let virtual_ones: BTreeSet<IpAddr> = group.addresses.iter().map(|a| a.address).collect();
    let mut seen = BTreeSet::new();
    let peers = group.unicast_peers.iter().enumerate();
    let peers = peers.map(|(index, peer)| (format!("{path}.unicast_peers[{index}]"), *peer));
    let source = group.source.map(|source| (join(path, "source"), source));
    for (field, address) in peers.chain(source) {
        check_link_host(problems, field.clone(), address, address);
        if address.is_ipv4() != group.is_ipv4() {
            let ours = if group.is_ipv4() { "IPv4" } else { "IPv6" };
            let expected = format!("an {ours} address, as those of the group are");
            problems.add(&field, address, expected);
        }
        if virtual_ones.contains(&address) {
            let expected = "a node's own address, not one that moves between them";
            problems.add(&field, address, expected);
        }
        if !seen.insert(address) {
            problems.add(field, address, "each address only once, and not `source`");
        }
    }
    problems.check_number(path, "unicast_min_ttl", group.unicast_min_ttl.into());
    if group.unicast_min_ttl < 255 && group.unicast_peers.is_empty() {
        problems.add(
            join(path, "unicast_min_ttl"),
            group.unicast_min_ttl,
            "it only with unicast_peers: multicast does not leave the link",
        );
    }
    if !group.is_ipv4() && group.ipv4_checksum != Checksum::Auto {
        let value = match group.ipv4_checksum {
            Checksum::Rfc5798 => "rfc5798",
            _ => "rfc9568",
        };
        problems.add(
            join(path, "ipv4_checksum"),
            value,
            "it only with IPv4 addresses: over IPv6 there is but one way",
        );
    }
}

fn tracks(problems: &mut Problems, config: &Config, path: &str, group: &Group) {
    if group.priority == 255 && !group.track.is_empty() {
        problems.add(
            join(path, "track"),
            listed(group.track.keys()),
            "nothing to track with priority 255, which nothing lowers: give 254",
        );
    }
    for (name, track) in &group.track {
        let path = join(&join(path, "track"), name);
        problems.check_name(&path, name);
        problems.check_number(&path, "lower_by", track.lower_by.into());
        problems.check_duration(&path, "interval", track.interval);
        problems.check_duration(&path, "timeout", track.timeout);
        problems.check_number(&path, "rise", track.rise);
        problems.check_number(&path, "fall", track.fall);
        if let Some(interface) = &track.interface {
            problems.check_interface(join(&path, "interface"), interface);
        }
        fits(problems, config, &path, track);
    }
}

/// The fields that belong to what is tracked, and no others.
fn fits(problems: &mut Problems, config: &Config, path: &str, track: &Track) {
    let given = [
        ("interface", track.interface.clone()),
        ("service", track.service.clone()),
        ("command", track.command.first().cloned()),
    ];
    let (word, own, required) = match track.kind {
        TrackKind::Interface => ("interface", "interface", false),
        TrackKind::Xdp => ("xdp", "interface", false),
        TrackKind::Service => ("service", "service", true),
        TrackKind::Command => ("command", "command", true),
    };
    for (key, value) in given {
        match value {
            Some(value) if key != own => {
                let expected = format!("nothing here, as type = \"{word}\" does not use it");
                problems.add(join(path, key), value, expected);
            }
            None if key == own && required => {
                let expected = format!("a value, as type = \"{word}\" needs it");
                problems.add(join(path, key), "", expected);
            }
            _ => {}
        }
    }
    if let Some(service) = &track.service
        && track.kind == TrackKind::Service
        && !config.services.contains_key(service)
    {
        let names = config.services.keys();
        let guess = did_you_mean(service, names.clone().map(String::as_str));
        let expected = format!("a service's name: {}{guess}", listed(names));
        problems.add(join(path, "service"), service, expected);
    }
}

/// Groups that fail over together are of one mind.
fn together(problems: &mut Problems, groups: &BTreeMap<String, Group>) {
    let mut firsts: BTreeMap<&str, (&str, &Group)> = BTreeMap::new();
    for (name, group) in groups {
        let Some(sync) = &group.sync else {
            continue;
        };
        let path = join("ha.groups", name);
        problems.check_name(&join(&path, "sync"), sync);
        let (first, other) = *firsts.entry(sync).or_insert((name, group));
        let mut same = |key: &str, ours: String, theirs: String| {
            if ours != theirs {
                let other = join("ha.groups", first);
                let expected = format!("{theirs}, as {other} has, which has the same `sync`");
                problems.add(join(&path, key), ours, expected);
            }
        };
        let time = |time: Duration| format_duration(time).to_string();
        same(
            "priority",
            group.priority.to_string(),
            other.priority.to_string(),
        );
        same(
            "advert_interval",
            time(group.advert_interval),
            time(other.advert_interval),
        );
        same(
            "announce_interval",
            time(group.announce_interval),
            time(other.announce_interval),
        );
        same(
            "preempt",
            group.preempt.to_string(),
            other.preempt.to_string(),
        );
        same(
            "preempt_delay",
            time(group.preempt_delay),
            time(other.preempt_delay),
        );
    }
}
