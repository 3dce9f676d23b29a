//! Rules of shared addresses.

use lb_userspace::config::{Live, Problems};

use crate::{breaks, parse, with};

fn group(lines: &str) -> String {
    with(&format!(
        "[ha.groups.front]\nvrid = 51\ninterface = \"eth0\"\n{lines}"
    ))
}

#[test]
fn groups_are_checked() {
    let right = group(
        "addresses = [\"203.0.113.1/24\"]\nunicast_peers = [\"192.0.2.2\"]\nsync = \"pair\"\n\
         preempt = true\npreempt_delay = \"30s\"\nadvert_interval = \"100ms\"\n\
         track = { web = { type = \"service\", service = \"web\", lower_by = 50 } }",
    );
    assert_eq!(parse(&right).check(), Ok(()));
    breaks(
        &group("addresses = []\npriority = 0\nadvert_interval = \"155ms\""),
        &[
            (
                "ha.groups.front.priority",
                "0",
                "a whole number from 1 to 255",
            ),
            (
                "ha.groups.front.advert_interval",
                "155ms",
                "whole hundredths of a second, as VRRP counts in them",
            ),
            ("ha.groups.front.addresses", "[]", "1 to 255 addresses"),
        ],
    );
    breaks(
        &group(
            "addresses = [\"203.0.113.1\"]\n\
             track = { x = { type = \"service\", service = \"wbe\", lower_by = 5 } }",
        ),
        &[(
            "ha.groups.front.track.x.service",
            "wbe",
            "a service's name: web (did you mean \"web\"?)",
        )],
    );
    breaks(
        &group("addresses = [\"203.0.113.1\"]\npreempt_delay = \"1s\""),
        &[(
            "ha.groups.front.preempt_delay",
            "1s",
            "it only with preempt = true",
        )],
    );
}

/// A service that a priority depends on does not go, in a running agent either.
#[test]
fn a_tracked_service_stays() {
    let tracked = group(
        "addresses = [\"203.0.113.1\"]\n\
         track = { x = { type = \"service\", service = \"web\", lower_by = 5 } }",
    );
    let mut live = Live::new(parse(&tracked)).expect("it is right");
    let removed: Result<_, Problems> = live.change(|draft| {
        draft.set_service("web".to_owned(), None);
        Ok(())
    });
    let problems = removed.map(drop).expect_err("it is tracked");
    assert_eq!(problems.0[0].field, "ha.groups.front.track.x.service");
    assert!(live.config().services.contains_key("web"));
}

#[test]
fn announced_vips_are_checked() {
    let right = with(
        "[ha.routes]\ninterface = \"dummy0\"\nannounce = \"every\"\nvips = [\"203.0.113.1\"]\n\
         grace = \"0s\"\nlease = \"10s\"",
    );
    assert_eq!(parse(&right).check(), Ok(()));
    breaks(
        &with(
            "[ha.routes]\ninterface = \"much-too-long-a-name\"\n\
             vips = [\"203.0.113.1\", \"203.0.113.1\", \"127.0.0.1\"]\n\
             grace = \"11min\"\nlease = \"1500ms\"",
        ),
        &[
            (
                "ha.routes.interface",
                "much-too-long-a-name",
                "an interface's name: 1 to 15 bytes without '/', ':' and spaces",
            ),
            (
                "ha.routes.grace",
                "11m",
                "a duration from 0s to 10m, such as \"500ms\", \"2s\" or \"15m\"",
            ),
            (
                "ha.routes.lease",
                "1s 500ms",
                "whole seconds, as leases are counted in them",
            ),
            ("ha.routes.vips[1]", "203.0.113.1", "each address only once"),
            (
                "ha.routes.vips[2]",
                "127.0.0.1",
                "the address of a host, not a loopback one",
            ),
        ],
    );
    breaks(
        &with("[ha.routes]\nvips = []"),
        &[(
            "ha.routes.vips",
            "[]",
            "at least one VIP; leave it out to announce those of all services",
        )],
    );
}

#[test]
fn agreeing_on_health_has_bounds() {
    for (lease, got, expected) in [
        (
            "500ms",
            "500ms",
            "a duration from 1s to 10m, such as \"500ms\", \"2s\" or \"15m\"",
        ),
        (
            "2500ms",
            "2s 500ms",
            "whole seconds, as leases are counted in them",
        ),
    ] {
        breaks(
            &with(&format!("[ha.health]\nlease = \"{lease}\"")),
            &[("ha.health.lease", got, expected)],
        );
    }
    let health = |text: &str| parse(&with(text)).ha.health;
    assert!(health("").agree && !health("[ha.health]\nagree = false").agree);
}

/// One node holds it, or all announce it.
#[test]
fn a_vip_is_not_both_held_and_announced() {
    let both = group("addresses = [\"203.0.113.1/24\"]\n[ha.routes]\nvips = [\"203.0.113.1\"]");
    breaks(
        &both,
        &[(
            "ha.routes.vips[0]",
            "203.0.113.1",
            "an address that no group holds: ha.groups.front has it",
        )],
    );
    let config = parse(&group("addresses = [\"203.0.113.1/24\"]\n[ha.routes]"));
    assert_eq!(config.check(), Ok(()));
    assert!(!config.ha.is_announced([203, 0, 113, 1].into()));
    assert!(config.ha.is_announced([203, 0, 113, 2].into()));
}
