//! Rules of pools and health checks.

use crate::{breaks, malformed, parse, small, with};

#[test]
fn pools_are_checked() {
    let backends = |lines: &str| with(&format!("[pools.db.backends]\n{lines}"));
    breaks(
        &backends("a = { address = \"10.0.0.1:1\" }\nb = { address = \"10.0.0.1:1\" }"),
        &[(
            "pools.db.backends.b.address",
            "10.0.0.1:1",
            "each address and port only once: pools.db.backends.a has it",
        )],
    );
    breaks(
        &backends("a = { address = \"10.0.0.1:0\" }"),
        &[(
            "pools.db.backends.a.address",
            "10.0.0.1:0",
            "a port from 1 to 65535",
        )],
    );
    let text = backends("a = { address = \"10.0.0.1:1\", weight = 65536 }");
    const WEIGHT: &str = "a whole number from 0 to 65535";
    malformed(&text, 0, "pools.db.backends.a.weight", "65536", WEIGHT);
    breaks(
        &small("10.0.0.11:80", "203.0.113.1:81"),
        &[(
            "pools.web.backends.web1.address",
            "203.0.113.1:81",
            "an address other than the VIP of services.web",
        )],
    );
    let zero = small("10.0.0.11:80\"", "10.0.0.11:80\"\nweight = 0");
    assert_eq!(parse(&zero).check(), Ok(()));
}

#[test]
fn health_checks_are_checked() {
    let check = |more: &str| small("\"http\" }", &format!("\"http\", {more} }}"));
    const INTERVAL: &str = r#"a duration from 50ms to 1h, such as "500ms", "2s" or "15m""#;
    const TIMEOUT: &str = r#"a duration from 10ms to 1h, such as "500ms", "2s" or "15m""#;
    const COUNT: &str = "a whole number from 1 to 100";
    const STATUS: &str = "codes from 100 to 599, the first not above the last";
    const PATH: &str = "a path that begins with '/', without spaces, control characters and '#'";
    const HOST: &str = "a host for the Host header, such as example.org or example.org:8080";
    const BODY: &str = "text of 1 to 1024 bytes";
    let long = format!("{}...", "x".repeat(77));
    for (key, given, value, expected) in [
        ("interval", "\"49ms\"", "49ms", INTERVAL),
        ("interval", "\"61m\"", "1h 1m", INTERVAL),
        ("timeout", "\"9ms\"", "9ms", TIMEOUT),
        ("timeout", "\"3601s\"", "1h 1s", TIMEOUT),
        ("rise", "0", "0", COUNT),
        ("rise", "101", "101", COUNT),
        ("fall", "0", "0", COUNT),
        ("fall", "101", "101", COUNT),
        (
            "jitter_percent",
            "101",
            "101",
            "a whole number from 0 to 100",
        ),
        ("port", "0", "0", "a whole number from 1 to 65535"),
        ("status", "\"99\"", "99", STATUS),
        ("status", "\"500-600\"", "500-600", STATUS),
        ("status", "\"299-200\"", "299-200", STATUS),
        ("path", "\"healthz\"", "healthz", PATH),
        ("path", "\"\"", "", PATH),
        ("path", "\"/a b\"", "/a b", PATH),
        ("path", "\"/a\\nb\"", "/a\\nb", PATH),
        ("path", "\"/a#b\"", "/a#b", PATH),
        ("host", "\"\"", "", HOST),
        ("host", "\"a b\"", "a b", HOST),
        ("host", "\"a\\r\\nX: y\"", "a\\r\\nX: y", HOST),
        ("body_contains", "\"\"", "", BODY),
        (
            "body_contains",
            &format!("{:?}", "x".repeat(1025)),
            &long,
            BODY,
        ),
    ] {
        let field = format!("pools.web.health_check.{key}");
        breaks(
            &check(&format!("{key} = {given}")),
            &[(&field, value, expected)],
        );
    }
    for right in [
        "interval = \"50ms\", timeout = \"10ms\", rise = 1, fall = 100, jitter_percent = 0",
        "interval = \"1h\", timeout = \"1h\", rise = 100, fall = 1, jitter_percent = 100",
        "status = \"100-599\", path = \"/a?b=c\", host = \"[2001:db8::1]:80\"",
    ] {
        assert_eq!(parse(&check(right)).check(), Ok(()), "{right}");
    }
    let text = small(
        "\"http\" }",
        "\"tcp\", path = \"/\", host = \"h\", status = \"200\", body_contains = \"ok\" }",
    );
    let none = "no such field with type \"tcp\"";
    breaks(
        &text,
        &[
            ("pools.web.health_check.path", "/", none),
            ("pools.web.health_check.host", "h", none),
            ("pools.web.health_check.status", "200", none),
            ("pools.web.health_check.body_contains", "ok", none),
        ],
    );
}

#[test]
fn wrong_health_checks_are_named() {
    let text = small("{ type = \"http\" }", "{ type = \"http\", status = 200 }");
    malformed(
        &text,
        5,
        "pools.web.health_check.status",
        "200",
        "text in quotes",
    );
    for status in ["", "2xx", "200-", "200-299-300", "70000"] {
        let text = small("\"http\" }", &format!("\"http\", status = \"{status}\" }}"));
        malformed(
            &text,
            5,
            "pools.web.health_check.status",
            status,
            r#"a status such as "200" or a range such as "200-299""#,
        );
    }
    let text = small("{ type = \"http\" }", "{ type = \"ping\" }");
    malformed(
        &text,
        5,
        "pools.web.health_check.type",
        "ping",
        "one of tcp, http",
    );
    let text = small("{ type = \"http\" }", "{}");
    const REQUIRED: &str = "a value, as the field is required";
    malformed(&text, 5, "pools.web.health_check.type", "", REQUIRED);
}

#[test]
fn floor_and_slow_start_are_checked() {
    breaks(
        &small(
            "[pools.db]",
            "[pools.db]\nhealth_floor_percent = 101\nslow_start = \"2h\"",
        ),
        &[
            (
                "pools.db.health_floor_percent",
                "101",
                "a whole number from 0 to 100",
            ),
            (
                "pools.db.slow_start",
                "2h",
                r#"a duration from 1s to 1h, such as "500ms", "2s" or "15m""#,
            ),
        ],
    );
}
