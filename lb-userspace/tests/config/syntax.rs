//! What is said of wrong syntax and types.

use lb_userspace::config::{Config, Service, from_json, from_toml};
use proptest::prelude::*;

use crate::{FULL, is, malformed, small, with};

#[test]
fn syntax_errors_have_places() {
    malformed(
        "a = 1\nb = = 2\n",
        2,
        "",
        "b = = 2",
        "valid TOML: extra `=`, expected nothing",
    );
    malformed(
        &with("[services.web]\nport = 1"),
        15,
        "",
        "[services.web]",
        "valid TOML: duplicate key",
    );
    let problem = from_toml::<Config>(b"[agent]\n# \xff").unwrap_err();
    is(&problem, "", "# \u{fffd}", "valid TOML: UTF-8 text");
    assert_eq!(problem.at.map(|at| (at.line, at.column)), Some((2, 3)));

    let json = |text: &str| from_json::<Service>(text.as_bytes(), "services.web").unwrap_err();
    let problem = json("{\n  \"port\": 80,\n}");
    is(&problem, "", "}", "valid JSON: trailing comma");
    assert_eq!(problem.at.map(|at| (at.line, at.column)), Some((3, 1)));
    is(&json(""), "", "", "valid JSON: EOF while parsing a value");
    is(&json("{} x"), "", "{} x", "valid JSON: trailing characters");
}

#[test]
fn wrong_fields_are_named_in_json() {
    let good = r#"{"address": "203.0.113.1", "port": 80, "protocol": "tcp", "mode": "nat", "pool": "web"}"#;
    let json = |from: &str, to: &str| {
        assert!(good.contains(from));
        let text = good.replace(from, to);
        from_json::<Service>(text.as_bytes(), "services.web").unwrap_err()
    };
    const FIELDS: &str = "one of the fields address, port, protocol, mode, pool, idle_timeout, algorithm, affinity, tracking, on_backend_death, on_no_backend, fallback_pool, http, tls";
    let problem = json("\"pool\"", "\"pol\"");
    is(
        &problem,
        "services.web.pol",
        "pol",
        &format!("{FIELDS} (did you mean \"pool\"?)"),
    );
    assert_eq!(problem.at.map(|at| at.line), Some(1));
    let problem = json("\"web\"}", "\"web\", \"zzz\": {}}");
    is(&problem, "services.web.zzz", "zzz", FIELDS);
    let problem = json(", \"pool\": \"web\"", "");
    is(
        &problem,
        "services.web.pool",
        "",
        "a value, as the field is required",
    );
    let problem = json("80,", "80, \"port\": 81,");
    is(&problem, "services.web.port", "port", "each name only once");
    // Names and values that read like the error itself.
    let problem = json("\"pool\"", "\"a`, expected `b\"");
    let field = "services.web.\"a`, expected `b\"";
    is(&problem, field, "a`, expected `b", FIELDS);
    let problem = json("80", "\"x, expected y\"");
    is(
        &problem,
        "services.web.port",
        "x, expected y",
        "a whole number from 1 to 65535",
    );
    let problem = json("80", "65536");
    is(
        &problem,
        "services.web.port",
        "65536",
        "a whole number from 1 to 65535",
    );
    let problem = json("80", "1.5");
    is(
        &problem,
        "services.web.port",
        "1.5",
        "a whole number from 1 to 65535",
    );
    let problem = json("80", "null");
    is(
        &problem,
        "services.web.port",
        "null",
        "a whole number from 1 to 65535",
    );
    let problem = json("\"203.0.113.1\"", "\"203.0.113.256\"");
    is(
        &problem,
        "services.web.address",
        "203.0.113.256",
        "an IPv4 or IPv6 address",
    );
    let problem = json("\"tcp\"", "\"sctp\"");
    is(&problem, "services.web.protocol", "sctp", "one of tcp, udp");
    let problem = json("\"nat\"", "\"tunnel\"");
    is(
        &problem,
        "services.web.mode",
        "tunnel",
        "one of nat, full-nat, dsr, local",
    );
    let problem = json("\"nat\"", "5");
    is(&problem, "services.web.mode", "5", "text in quotes");
    let problem = json("\"nat\"", "\"fullnat\"");
    let expected = "one of nat, full-nat, dsr, local (did you mean \"full-nat\"?)";
    is(&problem, "services.web.mode", "fullnat", expected);
    let problem = json(good, "[]");
    is(&problem, "services.web", "[]", "a table");

    let twice = br#"{"services": {"a": {}, "a": {}}}"#;
    assert!(from_json::<Config>(twice, "").is_err());
    let twice = br#"{"pools": {"a.b": {}, "a.b": {}}}"#;
    let problem = from_json::<Config>(twice, "").unwrap_err();
    is(&problem, "pools.\"a.b\"", "a.b", "each name only once");
}

#[test]
fn wrong_types_are_named_in_toml() {
    let text = small("mode =", "moed =");
    malformed(
        &text,
        13,
        "services.web.moed",
        "moed",
        "one of the fields address, port, protocol, mode, pool, idle_timeout, algorithm, affinity, tracking, on_backend_death, on_no_backend, fallback_pool, http, tls (did you mean \"mode\"?)",
    );
    let text = small("address = \"10.0.0.11:80\"", "address = \"10.0.0.11\"");
    malformed(
        &text,
        7,
        "pools.web.backends.web1.address",
        "10.0.0.11",
        "an address and port such as 10.0.0.11:8080 or [2001:db8::11]:8080",
    );
    let text = small("port = 80", "port = \"80\"");
    malformed(
        &text,
        11,
        "services.web.port",
        "80",
        "a whole number from 1 to 65535",
    );
    let text = small("port = 80", "port = 80\nidle_timeout = \"5 parsecs\"");
    const TIMEOUT: &str = r#"a duration from 1s to 7days, such as "500ms", "2s" or "15m""#;
    malformed(&text, 12, "services.web.idle_timeout", "5 parsecs", TIMEOUT);
    let text = small("port = 80", "port = 80\nidle_timeout = 5");
    malformed(&text, 12, "services.web.idle_timeout", "5", TIMEOUT);
    let text = small("pool = \"web\"", "");
    malformed(
        &text,
        9,
        "services.web.pool",
        "",
        "a value, as the field is required",
    );
    let text = small("mode = \"nat\"", "mode = 5");
    malformed(&text, 13, "services.web.mode", "5", "text in quotes");
    let text = small("[pools.db]", "[pools.\"a.b\"]\nx = 1");
    const POOL: &str =
        "one of the fields health_check, health_floor_percent, slow_start, http, backends";
    malformed(&text, 9, "pools.\"a.b\".x", "x", POOL);
    malformed(
        &with("[service.x]"),
        15,
        "service",
        "service",
        "one of the fields agent, pools, services, ha (did you mean \"services\"?)",
    );
}

proptest! {
    /// Whatever is in a document, reading it ends in a configuration or a problem of one line.
    #[test]
    fn broken_documents_give_problems(at in 0..FULL.len(), with in "[ -~\n]{0,3}", cut in 0..4usize) {
        let end = (at + cut).min(FULL.len());
        let text = format!("{}{with}{}", &FULL[..at], &FULL[end..]);
        let problems = match from_toml::<Config>(text.as_bytes()) {
            Ok(config) => config.check().map_or_else(|problems| problems.0, |()| Vec::new()),
            Err(problem) => vec![problem],
        };
        for problem in problems {
            let shown = problem.to_string();
            prop_assert!(shown.contains(&problem.field) && shown.contains(&problem.value));
            prop_assert!(!problem.expected.is_empty());
            prop_assert_eq!(shown.lines().count(), 1, "{}", shown);
        }
    }
}
