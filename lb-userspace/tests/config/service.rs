//! Rules of services, alone and together.

use crate::{breaks, parse, small, with};

#[test]
fn services_are_checked() {
    breaks(
        &small("pool = \"web\"", "pool = \"wbe\""),
        &[(
            "services.web.pool",
            "wbe",
            "a pool's name: db, web (did you mean \"web\"?)",
        )],
    );
    breaks(
        &small("port = 80", "port = 0"),
        &[("services.web.port", "0", "a whole number from 1 to 65535")],
    );
    for (timeout, shown) in [("999ms", "999ms"), ("8days", "8days")] {
        breaks(
            &small(
                "port = 80",
                &format!("port = 80\nidle_timeout = \"{timeout}\""),
            ),
            &[(
                "services.web.idle_timeout",
                shown,
                r#"a duration from 1s to 7days, such as "500ms", "2s" or "15m""#,
            )],
        );
    }
    breaks(
        &small("\"203.0.113.1\"", "\"2001:db8::1\""),
        &[(
            "services.web.pool",
            "web",
            "a pool of IPv6 backends, as 2001:db8::1 is; of the other family: web1",
        )],
    );
}

#[test]
fn full_nat_services_need_sources_of_their_family() {
    let text = small("mode = \"nat\"", "mode = \"full-nat\"");
    breaks(
        &text,
        &[(
            "agent.full_nat.addresses",
            "[none]",
            "at least one IPv4 address, for full-nat: services.web",
        )],
    );
    let wrong = text.clone() + "[agent.full_nat]\naddresses = [\"2001:db8::1\"]";
    breaks(
        &wrong,
        &[(
            "agent.full_nat.addresses",
            "[2001:db8::1]",
            "at least one IPv4 address, for full-nat: services.web",
        )],
    );
    let right = text + "[agent.full_nat]\naddresses = [\"192.0.2.1\"]";
    assert_eq!(parse(&right).check(), Ok(()));
}

#[test]
fn dsr_keeps_the_port() {
    let text = small("mode = \"nat\"", "mode = \"dsr\"");
    assert_eq!(parse(&text).check(), Ok(()));
    breaks(
        &text.replace("10.0.0.11:80", "10.0.0.11:8080"),
        &[(
            "services.web.pool",
            "web",
            "a pool of backends on port 80, as a dsr service does not change ports; on others: web1",
        )],
    );
}

fn service(name: &str, address: &str, protocol: &str, mode: &str) -> String {
    format!(
        "[services.{name}]\naddress = \"{address}\"\nport = 80\nprotocol = \"{protocol}\"\n\
         mode = \"{mode}\"\npool = \"web\"\n"
    )
}

#[test]
fn an_endpoint_belongs_to_one_service() {
    breaks(
        &with(&service("zwei", "203.0.113.1", "tcp", "dsr")),
        &[(
            "services.zwei.address",
            "203.0.113.1 tcp port 80",
            "each address, protocol and port only once: services.web has it",
        )],
    );
    let other = with(&service("zwei", "203.0.113.1", "udp", "dsr"));
    assert_eq!(parse(&other).check(), Ok(()));
}

#[test]
fn a_nat_backend_serves_one_service() {
    let full_nat = "[agent.full_nat]\naddresses = [\"192.0.2.1\"]\n";
    let expected = "backends that services.web does not use, as a backend of a nat service \
                    serves no other nat or full-nat service; shared: \
                    pools.web.backends.web1 (10.0.0.11:80 tcp)";
    for mode in ["nat", "full-nat"] {
        breaks(
            &with(&(service("zwei", "203.0.113.2", "tcp", mode) + full_nat)),
            &[("services.zwei.pool", "web", expected)],
        );
    }
    // The same server by another pool.
    let text = with("[pools.db.backends.a]\naddress = \"10.0.0.11:80\"\n")
        + &service("zwei", "203.0.113.2", "tcp", "nat").replace("\"web\"", "\"db\"");
    let expected = expected.replace("pools.web.backends.web1", "pools.db.backends.a");
    breaks(&text, &[("services.zwei.pool", "db", &expected)]);
    // Another protocol's way back is another one, and dsr has none.
    for text in [
        with(&service("zwei", "203.0.113.2", "udp", "nat")),
        with(&service("zwei", "203.0.113.2", "tcp", "dsr")),
        small("\"nat\"", "\"full-nat\"")
            + &service("zwei", "203.0.113.2", "tcp", "full-nat")
            + full_nat,
    ] {
        assert_eq!(parse(&text).check(), Ok(()), "{text}");
    }
}

#[test]
fn what_is_remembered_is_checked() {
    breaks(
        &with("tracking = \"flow\"\naffinity = \"1ms\"\n"),
        &[
            (
                "services.web.affinity",
                "1ms",
                r#"a duration from 1s to 7days, such as "500ms", "2s" or "15m""#,
            ),
            (
                "services.web.tracking",
                "flow",
                "it only with protocol udp: connections of tcp are always kept",
            ),
        ],
    );
}

#[test]
fn fallback_pools_follow_the_rules_of_pools() {
    breaks(
        &with("fallback_pool = \"web\"\n"),
        &[(
            "services.web.fallback_pool",
            "web",
            "another pool than `pool`",
        )],
    );
    breaks(
        &with("fallback_pool = \"bd\"\n"),
        &[(
            "services.web.fallback_pool",
            "bd",
            r#"a pool's name: db, web (did you mean "db"?)"#,
        )],
    );
    breaks(
        &with(
            "fallback_pool = \"db\"\n[pools.db.backends]\na = { address = \"[2001:db8::1]:80\" }\n",
        )
        .replace("[pools.db]\n", ""),
        &[(
            "services.web.fallback_pool",
            "db",
            "a pool of IPv4 backends, as 203.0.113.1 is; of the other family: a",
        )],
    );
}
