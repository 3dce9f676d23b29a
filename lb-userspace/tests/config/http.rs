//! Services of mode `local`: `http`, `tls`, and the pools' `http`.

use std::time::Duration;

use lb_userspace::config::{
    Alpn, Config, Size, TlsVersion, UnknownNames, from_json, from_toml,
    http::{
        Balance, ForwardedHeaders, HttpVersion, Key, LogFormat, RetryOn, SameSite, Scheme,
        TextMatch,
    },
};

use crate::{breaks, malformed, parse, small};

/// Everything that a local service and its pool can be told, all different from the defaults.
const FULL: &str = r#"
[agent]
hash_key = "000102030405060708090a0b0c0d0e0f"
interfaces = ["eth0"]
[pools.web.backends.web1]
address = "10.0.0.11:80"
[pools.api.http]
version = "2"
tls = { ca = "/etc/weir/ca.pem", server_name = "api.internal", certificate = { chain = "/c", key = "/k" }, min_version = "1.3" }
keep_idle = 10
keepalive = "30s"
circuit_breaker = { connections = 1, pending = 2, requests = 3 }
outliers = { errors = 6, failures = 7, latency_factor = 8, rest = "20s", max_rest = "2m" }
[pools.api.backends.api1]
address = "[2001:db8::1]:8443"

[services.web]
address = "203.0.113.1"
port = 443
protocol = "tcp"
mode = "local"
pool = "web"
[services.web.tls]
certificates = [{ chain = "/a.pem", key = "/a.key" }, { chain = "/b.pem", key = "/b.key" }]
unknown_names = "refuse"
min_version = "1.3"
alpn = ["http/1.1"]
passthrough = { "db.example.org" = "api", "*.raw.example.org" = "web", "*" = "web" }
[services.web.tls.client_auth]
ca = "/clients.pem"
required = false
headers = { subject = "x-s", fingerprint = "x-f", issuer = "x-i", serial = "x-n", names = "x-d", certificate = "client-cert" }

[services.web.http]
balance = "consistent-hash"
hash_on = "cookie:sid"
proxy_protocol_from = ["10.0.0.0/8", "2001:db8::1"]
upgrades = ["websocket", "tcp"]
normalize_path = false
via = "weir1"
[services.web.http.sticky]
cookie = "backend"
path = "/app"
domain = "example.org"
max_age = "1h"
secure = true
http_only = false
same_site = "strict"
[services.web.http.timeouts]
handshake = "1s"
header = "2s"
body = "3s"
keepalive = "4s"
connect = "5s"
response = "6s"
idle = "7s"
tunnel = "8s"
drain = "9s"
total = "10s"
[services.web.http.retries]
attempts = 1
on = ["connect", "timeout"]
statuses = [502, 503]
budget_percent = 5
body_buffer = "1MiB"
hedge_after = "50ms"
[services.web.http.limits]
headers = 50
header_size = 16384
body_size = "10MiB"
requests_per_connection = 1000
connections_per_client = 20
streams = 10
[[services.web.http.rate_limits]]
key = "header:x-api-key"
requests = 100
per = "1m"
burst = 10
[services.web.http.forwarded]
headers = "both"
trusted = ["192.0.2.0/24"]
[services.web.http.request_id]
enabled = false
header = "x-id"
keep_trusted = false
[services.web.http.trace]
one_in = 100
[services.web.http.access_log]
format = "combined"
to = "/var/log/weir/web.log"
one_in = 10
[services.web.http.unavailable]
status = 502
body = "Gone fishing"
content_type = "text/html"
retry_after = "1m"
[services.web.http.request_headers]
remove = ["x-a"]
set = { x-b = "1" }
add = { x-c = "2" }
[services.web.http.response_headers]
set = { strict-transport-security = "max-age=31536000" }

[services.web.http.routes.canary]
priority = -1
hosts = ["www.example.org", "*.example.net"]
path_prefix = "/api"
methods = ["GET", "POST"]
headers = { x-env = "canary", x-any = { present = true } }
cookies = { group = { prefix = "b" } }
query = { v = { regex = "[0-9]+" } }
pools = { web = 95, api = 5 }
rewrite = { path_prefix = "/v2", host = "app.internal:8080" }
request_headers = { set = { x-canary = "1" } }
response_headers = { remove = ["server"] }
mirror = { pool = "api", percent = 10 }
balance = "latency"
sticky = { cookie = "canary" }
timeouts = { response = "1s", idle = "2s", tunnel = "3s", total = "4s" }
retries = { attempts = 0 }
rate_limits = [{ requests = 5 }]
body_size = "1GiB"
[services.web.http.routes.moved]
path = "/old"
redirect = { status = 301, scheme = "https", host = "new.example.org", port = 8443, path = "/new?x=1" }
[services.web.http.routes.moved-all]
path_prefix = "/was"
redirect = { path_prefix = "/is" }
[services.web.http.routes.teapot]
path_regex = "/tea/.*"
respond = { status = 418, body = "short and stout" }
[services.web.http.routes.versions]
path_regex = "/v[0-9]+/(.*)"
pool = "api"
rewrite = { path_regex = "/$1" }
[services.web.http.routes.whole]
balance = "consistent-hash"
hash_on = "query:user"
rewrite = { path = "/index.html" }
"#;

/// A small right document, to break.
const LOCAL: &str = r#"
[agent]
hash_key = "000102030405060708090a0b0c0d0e0f"
interfaces = ["eth0"]
[pools.web.backends.web1]
address = "10.0.0.11:80"
[services.web]
address = "203.0.113.1"
port = 80
protocol = "tcp"
mode = "local"
pool = "web"
[services.web.http]
"#;

fn local(more: &str) -> String {
    format!("{LOCAL}{more}\n")
}

#[test]
fn every_field_is_read() {
    let config = parse(FULL);
    assert_eq!(config.check(), Ok(()));
    let service = &config.services["web"];
    let http = &service.http;
    assert_eq!(http.balance, Balance::ConsistentHash);
    assert_eq!(http.hash_on, Key::Cookie("sid".to_owned()));
    assert_eq!(http.sticky.as_ref().unwrap().same_site, SameSite::Strict);
    assert_eq!(http.timeouts.total, Some(Duration::from_secs(10)));
    assert_eq!(http.retries.on, [RetryOn::Connect, RetryOn::Timeout]);
    assert_eq!(http.limits.header_size, Size::kib(16));
    assert_eq!(http.rate_limits[0].burst(), 10);
    assert_eq!(http.forwarded.headers, ForwardedHeaders::Both);
    assert!(http.proxy_protocol_from[0].contains([10, 1, 2, 3].into()));
    assert_eq!(
        http.access_log.as_ref().unwrap().format,
        LogFormat::Combined
    );
    let canary = &http.routes["canary"];
    assert_eq!(canary.headers["x-any"], TextMatch::Present(true));
    assert_eq!(canary.cookies["group"], TextMatch::Prefix("b".to_owned()));
    assert_eq!(canary.query["v"], TextMatch::Regex("[0-9]+".to_owned()));
    assert_eq!(canary.rate_limits[0].burst(), 5);
    let moved = http.routes["moved"].redirect.as_ref().unwrap();
    assert_eq!((moved.status, moved.scheme), (301, Some(Scheme::Https)));
    let mut pools: Vec<&str> = service.pools().collect();
    pools.sort_unstable();
    pools.dedup();
    assert_eq!(pools, ["api", "web"]);

    let tls = service.tls.as_ref().unwrap();
    assert_eq!(tls.unknown_names, UnknownNames::Refuse);
    assert_eq!(
        (tls.min_version, &*tls.alpn),
        (TlsVersion::V13, &[Alpn::Http11][..])
    );
    assert!(!tls.client_auth.as_ref().unwrap().required);
    let pool = &config.pools["api"].http;
    assert_eq!(pool.version, HttpVersion::Http2);
}

#[test]
fn both_formats_round_trip() {
    for text in [FULL, LOCAL] {
        let config = parse(text);
        let json = serde_json::to_string_pretty(&config).unwrap();
        assert!(!json.contains("null"), "{json}");
        assert_eq!(from_json::<Config>(json.as_bytes(), "").unwrap(), config);
        let toml = toml::to_string(&config).unwrap();
        assert_eq!(from_toml::<Config>(toml.as_bytes()).unwrap(), config);
    }
}

#[test]
fn a_pool_is_enough() {
    let config = parse(LOCAL);
    assert_eq!(config.check(), Ok(()));
    let http = &config.services["web"].http;
    assert_eq!(http.balance, Balance::LeastRequests);
    assert_eq!(http.upgrades, ["websocket"]);
    assert_eq!(http.unavailable.status, 503);
    assert!(http.request_id.enabled && http.normalize_path && http.access_log.is_none());
}

#[test]
fn only_local_services_have_http_and_tls() {
    for (field, more) in [
        (
            "services.web.http",
            "[services.web.http]\nbalance = \"round-robin\"",
        ),
        ("services.web.tls", "[services.web.tls]\ncertificates = []"),
    ] {
        let text = crate::with(more);
        let expected = "no such field with mode nat, but with local";
        breaks(&text, &[(field, "a table", expected)]);
    }
    let text = small(
        "mode = \"nat\"",
        "mode = \"local\"\non_no_backend = \"drop\"",
    );
    let expected = "no such field with mode local: http.unavailable is its answer";
    breaks(&text, &[("services.web.on_no_backend", "drop", expected)]);
}

#[test]
fn routes_are_checked() {
    const AT: &str = "services.web.http.routes.r";
    let path = "a path that begins with '/', without spaces, '?' and '#'";
    for (route, field, value, expected) in [
        ("path = \"x\"", "path", "x", path),
        ("path_prefix = \"/a?b\"", "path_prefix", "/a?b", path),
        (
            "path_regex = \"(\"",
            "path_regex",
            "(",
            "a regular expression: unclosed group",
        ),
        (
            "hosts = [\"a.org:80\"]",
            "hosts[0]",
            "a.org:80",
            "a host without port, such as www.example.org or *.example.org",
        ),
        (
            "hosts = [\"*\"]",
            "hosts[0]",
            "*",
            "a host without port, such as www.example.org or *.example.org",
        ),
        (
            "hosts = [\"a.org\", \"A.org\"]",
            "hosts[1]",
            "A.org",
            "each host only once",
        ),
        (
            "methods = [\"get\"]",
            "methods[0]",
            "get",
            "a method such as GET, in capitals",
        ),
        (
            "methods = [\"CONNECT\"]",
            "methods[0]",
            "CONNECT",
            "another method: CONNECT is always refused",
        ),
        (
            "headers = { \"a b\" = \"x\" }",
            "headers.\"a b\"",
            "a b",
            "a header's name: letters, digits and '-'",
        ),
        (
            "query = { a = { regex = \"[\" } }",
            "query.a.regex",
            "[",
            "a regular expression: unclosed character class",
        ),
        (
            "pool = \"wbe\"",
            "pool",
            "wbe",
            "a pool's name: web (did you mean \"web\"?)",
        ),
        (
            "pools = { web = 0 }",
            "pools",
            "0",
            "at least one pool with a weight above 0",
        ),
        (
            "mirror = { pool = \"none\" }",
            "mirror.pool",
            "none",
            "a pool's name: web",
        ),
        (
            "mirror = { pool = \"web\", percent = 0 }",
            "mirror.percent",
            "0",
            "a whole number from 1 to 100",
        ),
        (
            "redirect = { status = 200, host = \"a\" }",
            "redirect.status",
            "200",
            "301, 302, 303, 307 or 308",
        ),
        (
            "redirect = {}",
            "redirect",
            "nothing to change",
            "at least one of scheme, host, port, path and path_prefix",
        ),
        (
            "rewrite = { path_prefix = \"/\" }",
            "rewrite.path_prefix",
            "/",
            "no such field unless the route has a path_prefix",
        ),
        (
            "rewrite = { path_regex = \"/$1\" }",
            "rewrite.path_regex",
            "/$1",
            "no such field unless the route has a path_regex",
        ),
        (
            "rewrite = { host = \"a@b\" }",
            "rewrite.host",
            "a@b",
            "a host, such as app.internal or app.internal:8080",
        ),
        (
            "request_headers = { set = { host = \"x\" } }",
            "request_headers.set.host",
            "host",
            "another header: `rewrite.host` changes the host",
        ),
        (
            "response_headers = { remove = [\"Transfer-Encoding\"] }",
            "response_headers.remove[0]",
            "Transfer-Encoding",
            "another header: this one is the connection's own",
        ),
        (
            "request_headers = { add = { a = \"x\\ny\" } }",
            "request_headers.add.a",
            "x\\ny",
            "a header's value: printable ASCII without spaces at its ends",
        ),
        (
            "hash_on = \"path\"",
            "hash_on",
            "path",
            "no such field without balance \"consistent-hash\"",
        ),
        (
            "respond = { status = 204, body = \"x\" }",
            "respond.body",
            "x",
            "none, as an answer of status 204 has no body",
        ),
        (
            "timeouts = { total = \"1ms\" }",
            "timeouts.total",
            "1ms",
            r#"a duration from 10ms to 1day, such as "500ms", "2s" or "15m""#,
        ),
        (
            "rate_limits = [{ requests = 0 }]",
            "rate_limits[0].requests",
            "0",
            "a whole number from 1 to 1000000",
        ),
    ] {
        let text = local(&format!("routes.r = {{ {route} }}"));
        breaks(&text, &[(&format!("{AT}.{field}"), value, expected)]);
    }
    for (route, value, expected) in [
        (
            "pool = \"web\", redirect = { port = 1 }",
            "pool and redirect",
            "only one of pool, pools, redirect and respond",
        ),
        (
            "pool = \"web\", respond = { status = 200 }",
            "pool and respond",
            "only one of pool, pools, redirect and respond",
        ),
    ] {
        breaks(
            &local(&format!("routes.r = {{ {route} }}")),
            &[(AT, value, expected)],
        );
    }
    let two = local("routes.r = { path = \"/\", path_prefix = \"/\" }");
    let expected = "only one of path, path_prefix and path_regex";
    breaks(&two, &[(&format!("{AT}.path_prefix"), "/", expected)]);
}

#[test]
fn services_are_checked() {
    const AT: &str = "services.web.http";
    for (more, field, value, expected) in [
        (
            "hash_on = \"host\"",
            "hash_on",
            "host",
            "no such field without balance \"consistent-hash\"",
        ),
        (
            "upgrades = [\"h2c\"]",
            "upgrades[0]",
            "h2c",
            "another protocol: requests of an h2c tunnel would pass unseen",
        ),
        (
            "sticky = { cookie = \"a b\" }",
            "sticky.cookie",
            "a b",
            "a cookie's name: letters, digits, '_' and '-'",
        ),
        (
            "sticky = { same_site = \"none\", secure = false }",
            "sticky.secure",
            "false",
            "true, as browsers refuse same_site \"none\" without it",
        ),
        (
            "timeouts = { connect = \"2days\" }",
            "timeouts.connect",
            "2days",
            r#"a duration from 10ms to 1day, such as "500ms", "2s" or "15m""#,
        ),
        (
            "retries = { attempts = 11 }",
            "retries.attempts",
            "11",
            "a whole number from 0 to 10",
        ),
        (
            "retries = { body_buffer = \"1GiB\" }",
            "retries.body_buffer",
            "1GiB",
            r#"a size from 0 to 16MiB, such as 512, "64KiB" or "1MiB""#,
        ),
        (
            "limits = { headers = 0 }",
            "limits.headers",
            "0",
            "a whole number from 1 to 1000",
        ),
        (
            "unavailable = { status = 199 }",
            "unavailable.status",
            "199",
            "a whole number from 200 to 599",
        ),
        (
            "request_id = { header = \"\" }",
            "request_id.header",
            "",
            "a header's name: letters, digits and '-'",
        ),
        (
            "request_id = { header = \"X-Forwarded-For\" }",
            "request_id.header",
            "X-Forwarded-For",
            "another header: this one says who the client is (`forwarded.headers`)",
        ),
        (
            "access_log = { to = \"web.log\" }",
            "access_log.to",
            "web.log",
            "\"stdout\" or the absolute path of a file",
        ),
    ] {
        breaks(&local(more), &[(&format!("{AT}.{field}"), value, expected)]);
    }
    let udp = LOCAL.replace("\"tcp\"", "\"udp\"");
    let expected = "tcp, as mode local is HTTP";
    breaks(&udp, &[("services.web.protocol", "udp", expected)]);
}

#[test]
fn tls_is_checked() {
    let tls = |tls: &str| local(&format!("[services.web.tls]\n{tls}"));
    let certificate = "certificates = [{ chain = \"/a\", key = \"/b\" }]";
    for (text, field, value, expected) in [
        (
            String::new(),
            "certificates",
            "[]",
            "at least one certificate, or names in passthrough",
        ),
        (
            certificate.replace("/a", "a"),
            "certificates[0].chain",
            "a",
            "the absolute path of a PEM file",
        ),
        (
            format!("{certificate}\nalpn = []"),
            "alpn",
            "[]",
            "at least one of h2, http/1.1",
        ),
        (
            format!("{certificate}\nclient_auth = {{ ca = \"x\" }}"),
            "client_auth.ca",
            "x",
            "the absolute path of a PEM file",
        ),
        (
            "passthrough = { \"a b\" = \"web\" }".to_owned(),
            "passthrough.\"a b\"",
            "a b",
            "a host without port, such as www.example.org or *.example.org",
        ),
        (
            "passthrough = { a = \"none\" }".to_owned(),
            "passthrough.a",
            "none",
            "a pool's name: web",
        ),
    ] {
        breaks(
            &tls(&text),
            &[(&format!("services.web.tls.{field}"), value, expected)],
        );
    }
    let pool = local("[pools.web.http]\nkeep_idle = 20000");
    let expected = "a whole number from 0 to 10000";
    breaks(&pool, &[("pools.web.http.keep_idle", "20000", expected)]);
}

#[test]
fn types_are_checked() {
    let malformed = |more: &str, field: &str, value: &str, expected: &str| {
        malformed(
            &local(more),
            0,
            &format!("services.web.http.{field}"),
            value,
            expected,
        );
    };
    malformed(
        "hash_on = \"adress\"",
        "hash_on",
        "adress",
        r#"one of "address", "host", "path", "header:NAME", "cookie:NAME" and "query:NAME""#,
    );
    malformed(
        "limits.body_size = \"10 apples\"",
        "limits.body_size",
        "10 apples",
        r#"a size such as 512, "64KiB", "10MiB" or "1GiB""#,
    );
    malformed(
        "forwarded.trusted = [\"10.0.0.0/33\"]",
        "forwarded.trusted[0]",
        "10.0.0.0/33",
        "a network such as 10.0.0.0/8 or 2001:db8::/32, or one address",
    );
    malformed(
        "routes.r.headers.x = { prefx = \"a\" }",
        "routes.r.headers.x.prefx",
        "prefx",
        "one of the fields prefix, regex, present (did you mean \"prefix\"?)",
    );
    malformed(
        "routes.r.headers.x = { prefix = \"a\", present = true }",
        "routes.r.headers.x",
        r#"{"prefix":"a","present":true}"#,
        r#"text, or a table with one of "prefix", "regex" and "present""#,
    );
    malformed(
        "balance = \"least-conn\"",
        "balance",
        "least-conn",
        "one of round-robin, least-requests, consistent-hash, latency",
    );
}

/// Cookies that anyone could make are none; a route may do without where its service does not.
#[test]
fn sticky_sessions_need_a_key() {
    let expected = "an agent.hash_key of your own (openssl rand -hex 16), the same on all nodes: \
                    with the default, which is public, anyone could make cookies";
    let public = |more: &str| local(more).replace("hash_key", "#");
    for (more, field) in [
        ("sticky = {}", "services.web.http.sticky"),
        (
            "routes.r = { sticky = {} }",
            "services.web.http.routes.r.sticky",
        ),
    ] {
        breaks(&public(more), &[(field, "sessions that stay", expected)]);
        assert_eq!(parse(&local(more)).check(), Ok(()));
    }
    let off = "sticky = { enabled = false }";
    assert_eq!(parse(&public(off)).check(), Ok(()));
}
