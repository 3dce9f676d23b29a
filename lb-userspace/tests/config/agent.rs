//! Rules of the agent's settings.

use crate::{breaks, malformed, parse, small, with};

#[test]
fn interfaces_are_checked() {
    let interfaces = |list: &str| small("[\"eth0\"]", list);
    breaks(
        &interfaces("[]"),
        &[("agent.interfaces", "[]", "at least one interface")],
    );
    breaks(
        &interfaces("[\"eth0\", { name = \"eth0\" }]"),
        &[(
            "agent.interfaces[1].name",
            "eth0",
            "each interface only once",
        )],
    );
    for name in ["", "a/b", "a b", "a:b", "..", "sixteen-bytes-xx"] {
        breaks(
            &interfaces(&format!("[\"eth0\", \"{name}\"]")),
            &[(
                "agent.interfaces[1].name",
                name,
                "an interface's name: 1 to 15 bytes without '/', ':' and spaces",
            )],
        );
    }
    assert_eq!(parse(&interfaces("[\"fifteen-bytes-x\"]")).check(), Ok(()));
}

#[test]
fn limits_are_checked() {
    let limits = |limits: &str| {
        small(
            "[\"eth0\"]",
            &format!("[\"eth0\"]\nlimits = {{ {limits} }}"),
        )
    };
    breaks(
        &limits("services = 65536, backends = 1_000_001, flows = 16_777_217"),
        &[
            (
                "agent.limits.services",
                "65536",
                "a whole number from 1 to 65535",
            ),
            (
                "agent.limits.backends",
                "1000001",
                "a whole number from 1 to 1000000",
            ),
            (
                "agent.limits.flows",
                "16777217",
                "a whole number from 1 to 16777216",
            ),
        ],
    );
    breaks(
        &limits("flows = 0"),
        &[(
            "agent.limits.flows",
            "0",
            "a whole number from 1 to 16777216",
        )],
    );
    let most = limits("services = 65535, backends = 1_000_000, flows = 16_777_216");
    assert_eq!(parse(&most).check(), Ok(()));
    assert_eq!(
        parse(&limits("services = 1, backends = 1, flows = 1")).check(),
        Ok(())
    );
    let more = "[pools.db.backends.a]\naddress = \"10.0.0.1:1\"\n\
                [services.two]\naddress = \"203.0.113.2\"\nport = 1\nprotocol = \"tcp\"\n\
                mode = \"nat\"\npool = \"db\"";
    breaks(
        &(limits("services = 1, backends = 1") + more),
        &[
            (
                "services",
                "2 services",
                "at most 1 services, as agent.limits.services says",
            ),
            (
                "pools",
                "2 backends",
                "at most 1 backends, as agent.limits.backends says",
            ),
        ],
    );
}

#[test]
fn the_admin_socket_is_checked() {
    let socket = |path: &str| with(&format!("[agent.admin]\nsocket = \"{path}\""));
    const EXPECTED: &str = "an absolute path of at most 98 bytes";
    breaks(
        &socket("weir.sock"),
        &[("agent.admin.socket", "weir.sock", EXPECTED)],
    );
    let long = format!("/{}", "x".repeat(98));
    let shown = format!("/{}...", "x".repeat(76));
    breaks(&socket(&long), &[("agent.admin.socket", &shown, EXPECTED)]);
    assert_eq!(parse(&socket(&long[..98])).check(), Ok(()));
}

#[test]
fn where_traces_go_is_checked() {
    let traces = |endpoint: &str, more: &str| {
        with(&format!(
            "[agent.traces]\nendpoint = \"{endpoint}\"\n{more}"
        ))
    };
    const EXPECTED: &str = "where a collector takes OTLP over gRPC, as http://HOST:PORT or \
                            https://HOST:PORT (it listens on 4317 normally)";
    for endpoint in [
        "",
        "localhost:4317",
        "http://a",
        "ftp://a:4317",
        "http://a:4318/v1/traces",
    ] {
        let text = traces(endpoint, "");
        breaks(&text, &[("agent.traces.endpoint", endpoint, EXPECTED)]);
    }
    let queue = "a whole number from 1 to 1000000";
    let text = traces("http://a:4317", "queue = 0\nservice_name = \"\"");
    breaks(
        &text,
        &[
            ("agent.traces.service_name", "", "a name"),
            ("agent.traces.queue", "0", queue),
        ],
    );
    let text = traces("https://collector.example.org:4317", "queue = 1");
    assert_eq!(parse(&text).check(), Ok(()));
    const OVER_HTTP: &str = "where a collector takes OTLP over HTTP, as http://HOST:PORT or \
                             https://HOST:PORT (it listens on 4318 normally), with a path where \
                             that is not /v1/traces";
    const HTTP: &str = "protocol = \"http\"";
    for endpoint in [
        "a:4318",
        "http://a/v1/traces",
        "http://a:4318/v1/traces?key=b",
    ] {
        let text = traces(endpoint, HTTP);
        breaks(&text, &[("agent.traces.endpoint", endpoint, OVER_HTTP)]);
    }
    for endpoint in ["http://a:4318", "https://a:443/otlp/v1/traces"] {
        assert_eq!(parse(&traces(endpoint, HTTP)).check(), Ok(()), "{endpoint}");
    }
}

#[test]
fn where_to_pin_is_checked() {
    let pin = |path: &str| small("[\"eth0\"]", &format!("[\"eth0\"]\npin = \"{path}\""));
    const EXPECTED: &str = "an absolute path without a dot in its last name, in a BPF file \
                            system; or nothing";
    for path in ["weir", "/", "/sys/fs/bpf/weir.1"] {
        breaks(&pin(path), &[("agent.pin", path, EXPECTED)]);
    }
    for path in ["", "/sys/fs/bpf/weir-2"] {
        assert_eq!(parse(&pin(path)).check(), Ok(()), "{path}");
    }
}

#[test]
fn full_nat_is_checked() {
    let full_nat = |lines: &str| with(&format!("[agent.full_nat]\n{lines}"));
    const PORTS: &str = "[first, last], with first from 1 to last";
    for (ports, shown) in [("[0, 5]", "[0, 5]"), ("[6, 5]", "[6, 5]")] {
        breaks(
            &full_nat(&format!("ports = {ports}")),
            &[("agent.full_nat.ports", shown, PORTS)],
        );
    }
    assert_eq!(parse(&full_nat("ports = [5, 5]")).check(), Ok(()));
    breaks(
        &full_nat("addresses = [\"192.0.2.1\", \"192.0.2.1\", \"0.0.0.0\"]"),
        &[
            (
                "agent.full_nat.addresses[1]",
                "192.0.2.1",
                "each address only once",
            ),
            (
                "agent.full_nat.addresses[2]",
                "0.0.0.0",
                "the address of a host, not the unspecified one",
            ),
        ],
    );
    breaks(
        &full_nat(
            "addresses = [\"192.0.2.1\"]\npeer_addresses = [\"192.0.2.1\", \"203.0.113.1\"]\nports = [80, 90]",
        ),
        &[
            (
                "agent.full_nat.peer_addresses[0]",
                "192.0.2.1",
                "each address only once",
            ),
            (
                "services.web.port",
                "80",
                "a port outside 80 to 90, as 203.0.113.1 is in agent.full_nat.peer_addresses",
            ),
        ],
    );
    let many = |count: u32| {
        let list: Vec<String> = (0..count)
            .map(|n| format!("\"2001:db8::{n:x}:1\""))
            .collect();
        full_nat(&format!("addresses = [{}]", list.join(", ")))
    };
    assert_eq!(parse(&many(256)).check(), Ok(()));
    breaks(
        &many(257),
        &[(
            "agent.full_nat.addresses",
            "257 addresses",
            "at most 256 addresses",
        )],
    );
    breaks(
        &full_nat("addresses = [\"203.0.113.1\"]\nports = [80, 90]"),
        &[(
            "services.web.port",
            "80",
            "a port outside 80 to 90, as 203.0.113.1 is in agent.full_nat.addresses",
        )],
    );
    assert_eq!(
        parse(&full_nat("addresses = [\"203.0.113.1\"]")).check(),
        Ok(())
    );
}

#[test]
fn wrong_agent_settings_are_named() {
    let agent = |line: &str| {
        small(
            "interfaces = [\"eth0\"]",
            &format!("interfaces = []\n{line}"),
        )
    };
    let interfaces = |list: &str| small("[\"eth0\"]", list);
    const INTERFACE: &str =
        r#"a name such as "eth0" or a table such as { name = "eth0", xdp = "native" }"#;
    malformed(
        &interfaces("[\"a\", 5]"),
        3,
        "agent.interfaces[1]",
        "5",
        INTERFACE,
    );
    malformed(
        &interfaces("\"eth0\""),
        3,
        "agent.interfaces",
        "eth0",
        "a list",
    );
    malformed(
        &interfaces("[{ name = \"a\", xdp = \"fast\" }]"),
        3,
        "agent.interfaces[0].xdp",
        "fast",
        "one of auto, native, generic",
    );
    let text = interfaces("[{ nme = \"a\" }]");
    const FIELDS: &str = "one of the fields name, xdp (did you mean \"name\"?)";
    malformed(&text, 3, "agent.interfaces[0].nme", "nme", FIELDS);
    for key in [
        "0g",
        "000102030405060708090A0b0c0d0e0f00",
        "+00102030405060708090A0b0c0d0e0f",
    ] {
        let text = agent(&format!("hash_key = \"{key}\""));
        malformed(&text, 4, "agent.hash_key", key, "32 hex digits");
    }
    let text = agent("limits = { flows = -1 }");
    malformed(
        &text,
        4,
        "agent.limits.flows",
        "-1",
        "a whole number from 1 to 16777216",
    );
    let text = agent("[agent.full_nat]\nports = [1, 2, 3]");
    malformed(
        &text,
        5,
        "agent.full_nat.ports",
        "[1,2,3]",
        "two numbers: [first, last]",
    );
    let text = agent("[agent.full_nat]\nports = [1, 70000]");
    malformed(
        &text,
        5,
        "agent.full_nat.ports[1]",
        "70000",
        "a whole number from 1 to 65535",
    );
    let text = agent("[agent.full_nat]\naddresses = [\"::1\", \"x\"]");
    malformed(
        &text,
        5,
        "agent.full_nat.addresses[1]",
        "x",
        "an IPv4 or IPv6 address",
    );
    let text = agent("[agent.admin]\nsocket = 5");
    malformed(&text, 5, "agent.admin.socket", "5", "text in quotes");
}
