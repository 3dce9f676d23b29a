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
