//! Routes against a plain reading of what the documentation says of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::config::http::{
    Redirect as RedirectConfig, Rewrite as RewriteConfig, Scheme, TextMatch,
};

fn table(routes: impl IntoIterator<Item = (&'static str, Config)>) -> Table {
    let routes = routes
        .into_iter()
        .map(|(name, route)| (name.to_owned(), route));
    let http = Http {
        routes: routes.collect(),
        ..Http::default()
    };
    Table::new(&http).unwrap()
}

fn get<'a>(host: &'a str, path: &'a str, headers: &'a HeaderMap) -> Request<'a> {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    Request {
        method: &Method::GET,
        host,
        path,
        query,
        headers,
    }
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn the_most_specific_wins() {
    let hosts = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect();
    let table = table([
        ("any", Config::default()),
        (
            "root",
            Config {
                path_prefix: text("/"),
                ..Config::default()
            },
        ),
        (
            "api",
            Config {
                path_prefix: text("/api/"),
                ..Config::default()
            },
        ),
        (
            "api-v2",
            Config {
                path_prefix: text("/api/v2"),
                ..Config::default()
            },
        ),
        (
            "v",
            Config {
                path_regex: text("/api/v[0-9]+/x"),
                ..Config::default()
            },
        ),
        (
            "exact",
            Config {
                path: text("/api/v2/x"),
                methods: vec!["PUT".into()],
                ..Config::default()
            },
        ),
        (
            "www",
            Config {
                hosts: hosts(&["www.example.org"]),
                ..Config::default()
            },
        ),
        (
            "wild",
            Config {
                hosts: hosts(&["*.example.org", "example.net"]),
                ..Config::default()
            },
        ),
        (
            "deep",
            Config {
                hosts: hosts(&["*.b.example.org"]),
                ..Config::default()
            },
        ),
        (
            "first",
            Config {
                priority: 1,
                path: text("/first"),
                ..Config::default()
            },
        ),
        (
            "q",
            Config {
                path: text("/q"),
                query: BTreeMap::from([("a".into(), TextMatch::Exact("ä b".into()))]),
                ..Config::default()
            },
        ),
    ]);
    let none = HeaderMap::new();
    for (host, path, expected) in [
        ("other.org", "*", "any"),
        ("other.org", "/", "root"),
        ("other.org", "/apix", "root"),
        ("other.org", "/api", "api"),
        ("other.org", "/api/", "api"),
        ("other.org", "/api/v1", "api"),
        ("other.org", "/api/v2/y", "api-v2"),
        ("other.org", "/api/v2/x", "v"),
        ("other.org", "/API", "root"),
        ("WWW.Example.org:8080", "/api", "www"),
        ("www.example.org.", "/api", "www"),
        ("x.example.org", "/api", "wild"),
        ("x.y.example.org", "/api", "wild"),
        ("example.net", "/api", "wild"),
        ("x.b.example.org", "/api", "deep"),
        ("b.example.org", "/api", "wild"),
        ("example.org", "/api", "api"),
        ("www.example.org", "/first", "first"),
        ("", "/q?a=%C3%A4+b", "q"),
        ("", "/q?a=x&a=%C3%A4%20b", "q"),
        ("", "/q?a=x", "root"),
    ] {
        assert_eq!(
            table.find(&get(host, path, &none)).name,
            expected,
            "{host}{path}"
        );
    }
    let put = Request {
        method: &Method::PUT,
        ..get("other.org", "/api/v2/x", &none)
    };
    assert_eq!(table.find(&put).name, "exact");
}

#[test]
fn headers_and_cookies() {
    let one = |name: &str, text: TextMatch| BTreeMap::from([(name.to_owned(), text)]);
    let table = table([
        (
            "h",
            Config {
                headers: one("X-Env", TextMatch::Regex("can.*y".into())),
                ..Config::default()
            },
        ),
        (
            "c",
            Config {
                cookies: one("group", TextMatch::Prefix("b".into())),
                ..Config::default()
            },
        ),
        (
            "none",
            Config {
                headers: one("x-env", TextMatch::Present(false)),
                priority: -1,
                ..Config::default()
            },
        ),
    ]);
    let find = |headers: &[(&'static str, &str)]| {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        table.find(&get("", "/", &headers.collect())).name.clone()
    };
    assert_eq!(find(&[("x-env", "canary")]), "h");
    assert_eq!(find(&[("x-env", "canary2")]), "");
    assert_eq!(find(&[("cookie", "a=b; group=b1")]), "c");
    assert_eq!(find(&[("cookie", "a=b; group=a")]), "none");
}

#[test]
fn rewrites_and_redirects() {
    let rewrite = |route: Config, rewrite: RewriteConfig, path: &str, query| {
        let new = Rewrite::new(&route, &rewrite).unwrap().path(path, query);
        new.map(|new| new.to_string())
    };
    let prefix = |from: &str| Config {
        path_prefix: text(from),
        ..Config::default()
    };
    let to = |prefix: &str| RewriteConfig {
        path_prefix: text(prefix),
        ..RewriteConfig::default()
    };
    for (from, into, path, expected) in [
        ("/api", "/v2", "/api/x", "/v2/x"),
        ("/api", "/v2", "/api", "/v2"),
        ("/api/", "/v2/", "/api/x", "/v2/x"),
        ("/api", "/", "/api/x", "/x"),
        ("/api", "/", "/api", "/"),
        ("/", "/v2", "/x", "/v2/x"),
        ("/api", "/", "/api//evil.org", "//evil.org"),
    ] {
        assert_eq!(
            rewrite(prefix(from), to(into), path, None).as_deref(),
            Some(expected),
            "{path}"
        );
    }
    assert_eq!(
        rewrite(prefix("/a"), to("/b"), "/a", Some("q=1")).unwrap(),
        "/b?q=1"
    );
    let regex = Config {
        path_regex: text("/v([0-9]+)/(?<rest>.*)"),
        ..Config::default()
    };
    let template = RewriteConfig {
        path_regex: text("/${rest}?v=$1"),
        ..RewriteConfig::default()
    };
    assert_eq!(
        rewrite(regex, template, "/v12/a/b", Some("x=1")).unwrap(),
        "/a/b?v=12"
    );

    let location = |redirect: RedirectConfig, host: &str, path: &str, query| {
        let redirect = Redirect::new(&prefix("/old"), &redirect).unwrap();
        let location = redirect.location(Scheme::Http, host, path, query)?;
        Ok::<_, Unlocatable>(location.to_str().unwrap().to_owned())
    };
    let https = RedirectConfig {
        scheme: Some(Scheme::Https),
        ..RedirectConfig::default()
    };
    assert_eq!(
        location(https.clone(), "a.org:8080", "/x", Some("q")).unwrap(),
        "https://a.org/x?q"
    );
    assert_eq!(
        location(https.clone(), "", "//evil.org", None),
        Err(Unlocatable)
    );
    let port = RedirectConfig {
        port: Some(8443),
        ..https
    };
    assert_eq!(
        location(port, "[::1]:80", "/", None).unwrap(),
        "https://[::1]:8443/"
    );
    let moved = RedirectConfig {
        path_prefix: text("/new"),
        ..RedirectConfig::default()
    };
    assert_eq!(
        location(moved, "a.org:8080", "/old/x", None).unwrap(),
        "http://a.org:8080/new/x"
    );
}

/// What the documentation says, word for word, without an index.
fn plain<'a>(routes: &'a BTreeMap<String, Config>, request: &Request<'_>) -> &'a str {
    let host_of = |route: &Config| {
        if route.hosts.is_empty() {
            return Some(0);
        }
        (route.hosts.iter())
            .filter_map(|pattern| match pattern.strip_prefix("*") {
                Some(end) => request.host.ends_with(end).then_some(end.len()),
                None => (pattern == request.host).then_some(1000),
            })
            .max()
    };
    let path_of = |route: &Config| {
        if let Some(path) = &route.path {
            return (path == request.path).then_some((3, 0));
        }
        if let Some(regex) = &route.path_regex {
            let found = regex::Regex::new(&format!("^({regex})$"))
                .unwrap()
                .is_match(request.path);
            return found.then_some((2, regex.len()));
        }
        if let Some(prefix) = &route.path_prefix {
            let prefix: Vec<&str> = prefix.split('/').filter(|s| !s.is_empty()).collect();
            let path: Vec<&str> = request.path.split('/').skip(1).collect();
            return path
                .starts_with(&prefix)
                .then_some((1, prefix.join("/").len()));
        }
        Some((0, 0))
    };
    let fitting = routes.iter().filter_map(|(name, route)| {
        let methods =
            route.methods.is_empty() || route.methods.contains(&request.method.to_string());
        let headers = route
            .headers
            .keys()
            .all(|name| request.headers.contains_key(name));
        let rank = (
            route.priority,
            host_of(route)?,
            path_of(route)?,
            !route.methods.is_empty(),
            route.headers.len(),
            std::cmp::Reverse(name),
        );
        (methods && headers).then_some((rank, name))
    });
    fitting.max().map_or("", |(_, name)| name)
}

fn some_route() -> impl Strategy<Value = Config> {
    let hosts = prop::collection::btree_set(
        prop::sample::select(vec!["a.org", "x.a.org", "*.a.org", "*.x.a.org", "b.org"]),
        0..3,
    );
    let path = prop_oneof![Just(None), "(/[ab]){1,3}".prop_map(Some)];
    (hosts, path, 0..3, -1..2i32, any::<bool>(), any::<bool>()).prop_map(
        |(hosts, path, kind, priority, method, header)| {
            let kind_of = |wanted| path.clone().filter(|_| kind == wanted);
            Config {
                priority,
                hosts: hosts.into_iter().map(str::to_owned).collect(),
                path: kind_of(0),
                path_prefix: kind_of(1),
                path_regex: kind_of(2).map(|path| path.replacen("/a", "/[ab]", 1)),
                methods: method.then(|| "GET".to_owned()).into_iter().collect(),
                headers: header
                    .then(|| ("x-h".to_owned(), TextMatch::Present(true)))
                    .into_iter()
                    .collect(),
                ..Config::default()
            }
        },
    )
}

proptest! {
    #[test]
    fn the_index_finds_what_a_plain_reading_finds(
        routes in prop::collection::btree_map("[a-z]{1,2}", some_route(), 0..12),
        requests in prop::collection::vec(
            (
                prop::sample::select(vec!["a.org", "x.a.org", "y.a.org", "z.x.a.org", "c.org"]),
                "(/[ab]){1,4}",
                any::<bool>(),
                any::<bool>(),
            ),
            1..20,
        ),
    ) {
        let http = Http { routes, ..Http::default() };
        let table = Table::new(&http).unwrap();
        for (host, path, post, header) in &requests {
            let mut headers = HeaderMap::new();
            if *header {
                headers.insert("x-h", "1".parse().unwrap());
            }
            let method = if *post { Method::POST } else { Method::GET };
            let request = Request { method: &method, ..get(host, path, &headers) };
            let expected = plain(&http.routes, &request);
            prop_assert_eq!(&*table.find(&request).name, expected, "{}{}", host, path);
        }
    }
}
