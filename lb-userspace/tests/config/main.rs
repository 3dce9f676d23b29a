//! The configuration document: what it reads, and what it says of what is wrong.

use lb_userspace::config::{Config, Problem, from_toml};

mod agent;
mod document;
mod ha;
mod http;
mod live;
mod pool;
mod service;
mod split;
mod syntax;

/// A document with every field, all different from their defaults.
const FULL: &str = r#"
[agent]
interfaces = ["eth0", { name = "eth1", xdp = "native" }, { name = "eth2" }]
hash_key = "000102030405060708090A0b0c0d0e0f"
limits = { services = 10, backends = 20, flows = 30 }
[agent.admin]
socket = "/tmp/weir.sock"
listen = "127.0.0.1:9180"
[agent.full_nat]
addresses = ["192.0.2.10", "2001:db8::10"]
ports = [2000, 3000]

[pools.web]
health_check = { type = "http", path = "/healthz", host = "example.org", status = "200", body_contains = "ok", port = 8081, interval = "500ms", jitter_percent = 5, timeout = "1s 500ms", rise = 1, fall = 4 }
health_floor_percent = 0
slow_start = "30s"
[pools.web.backends.web1]
address = "10.0.0.11:8080"
weight = 0
[pools.web.backends."web.2"]
address = "10.0.0.12:8080"
[pools.v6.backends]
a = { address = "[2001:db8:1::1]:443", weight = 65535 }
[pools.empty]

[services.web]
address = "203.0.113.1"
port = 80
protocol = "tcp"
mode = "nat"
pool = "web"
idle_timeout = "90s"
[services.v6]
address = "2001:db8:2::1"
port = 443
protocol = "udp"
mode = "full-nat"
pool = "v6"
tracking = "flow"
algorithm = "least-connections"
affinity = "1h"
on_backend_death = "silent"
on_no_backend = "drop"
fallback_pool = "empty"
[services.direct]
address = "2001:db8:2::1"
port = 443
protocol = "tcp"
mode = "dsr"
pool = "v6"
"#;

/// A small right document, to break.
const SMALL: &str = r#"
[agent]
interfaces = ["eth0"]
[pools.web]
health_check = { type = "http" }
[pools.web.backends.web1]
address = "10.0.0.11:80"
[pools.db]
[services.web]
address = "203.0.113.1"
port = 80
protocol = "tcp"
mode = "nat"
pool = "web"
"#;

fn parse(text: &str) -> Config {
    from_toml(text.as_bytes()).unwrap_or_else(|problem| panic!("{problem}\n{text}"))
}

/// The small document with its first `from` replaced.
fn small(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from}");
    SMALL.replacen(from, to, 1)
}

/// The small document and more.
fn with(more: &str) -> String {
    format!("{SMALL}{more}")
}

fn is(problem: &Problem, field: &str, value: &str, expected: &str) {
    assert_eq!(
        (&*problem.field, &*problem.value, &*problem.expected),
        (field, value, expected)
    );
}

/// The document breaks these rules, (field, value, expectation), and no others.
#[track_caller]
fn breaks(text: &str, rules: &[(&str, &str, &str)]) {
    let problems = parse(text).check().expect_err(text).0;
    let found: Vec<_> = (problems.iter())
        .map(|p| (&*p.field, &*p.value, &*p.expected))
        .collect();
    assert_eq!(found, rules, "{text}");
    for problem in &problems {
        assert_eq!(problem.at, None);
        let shown = problem.to_string();
        for part in [&problem.field, &problem.value, &problem.expected] {
            assert!(shown.contains(&**part), "{shown}");
        }
    }
}

/// The document is not even of the right types, or the right format; line 0: not looked at.
#[track_caller]
fn malformed(text: &str, line: usize, field: &str, value: &str, expected: &str) {
    let problem = from_toml::<Config>(text.as_bytes()).expect_err(text);
    is(&problem, field, value, expected);
    let at = problem.at.expect("a position");
    if line != 0 {
        assert_eq!(at.line, line, "{text}");
    }
}

#[test]
fn names_are_checked() {
    const NAME: &str =
        "a name of 1 to 64 letters, digits, '.', '_' and '-' that begins with a letter or digit";
    let long = "x".repeat(65);
    let quoted = |path: &str, name: &str| match name == long {
        true => format!("{path}.{name}"),
        false => format!("{path}.{name:?}"),
    };
    for name in ["", ".a", "a b", "é", &long] {
        let text = with(&format!(
            "[pools.{name:?}.backends.{name:?}]\naddress = \"10.0.0.1:1\"\n\
             [services.{name:?}]\naddress = \"203.0.113.2\"\nport = 1\nprotocol = \"tcp\"\n\
             mode = \"nat\"\npool = {name:?}"
        ));
        let pool = quoted("pools", name);
        breaks(
            &text,
            &[
                (&pool, name, NAME),
                (&quoted(&format!("{pool}.backends"), name), name, NAME),
                (&quoted("services", name), name, NAME),
            ],
        );
    }
    let text = with(&format!("[pools.\"{}\"]\n[pools.\"0._-\"]", &long[1..]));
    assert_eq!(parse(&text).check(), Ok(()));
}

#[test]
fn addresses_are_those_of_hosts() {
    for (address, wrong) in [
        ("0.0.0.0", "the unspecified one"),
        ("::", "the unspecified one"),
        ("224.0.0.1", "a multicast one"),
        ("ff02::1", "a multicast one"),
        ("127.0.0.2", "a loopback one"),
        ("::1", "a loopback one"),
        ("255.255.255.255", "the broadcast one"),
        ("::ffff:10.0.0.1", "an IPv4 one in IPv6 form"),
        ("fe80::1", "a link-local one"),
    ] {
        let expected = format!("the address of a host, not {wrong}");
        let ip: std::net::IpAddr = address.parse().unwrap();
        let backend = std::net::SocketAddr::new(ip, 80).to_string();
        breaks(
            &with(&format!("[pools.db.backends.a]\naddress = \"{backend}\"")),
            &[("pools.db.backends.a.address", &backend, &expected)],
        );
        let text = small("\"203.0.113.1\"", &format!("\"{address}\""));
        let text = text.replace("pool = \"web\"", "pool = \"db\"");
        breaks(&text, &[("services.web.address", address, &expected)]);
    }
}

#[test]
fn all_problems_are_reported() {
    let text = small("[\"eth0\"]", "[]")
        .replace("\"http\"", "\"http\", rise = 0, fall = 0")
        .replace("10.0.0.11:80", "127.0.0.1:80")
        .replace("pool = \"web\"", "pool = \"none\"");
    let problems = parse(&text).check().unwrap_err();
    let fields: Vec<&str> = problems.0.iter().map(|p| &*p.field).collect();
    assert_eq!(
        fields,
        [
            "agent.interfaces",
            "pools.web.health_check.rise",
            "pools.web.health_check.fall",
            "pools.web.backends.web1.address",
            "services.web.pool",
        ]
    );
    assert_eq!(problems.to_string().lines().count(), 5);
    let json = serde_json::to_value(&problems).unwrap();
    assert_eq!(
        json[1],
        serde_json::json!({
            "field": "pools.web.health_check.rise",
            "value": "0",
            "expected": "a whole number from 1 to 100",
        })
    );
}
