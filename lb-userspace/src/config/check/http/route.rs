//! Rules of one route.

use std::collections::{BTreeMap, BTreeSet};

use super::{Config, Problems, answer, balance, limits, names, retries, sticky};
use crate::config::{
    Service,
    check::service::check_pool,
    http::{HeaderChanges, Redirect, Rewrite, Route, TextMatch},
    problem::join,
};

pub(super) fn check(
    problems: &mut Problems,
    config: &Config,
    path: &str,
    name: &str,
    route: &Route,
    service: &Service,
) {
    problems.check_name(path, name);
    conditions(problems, path, route);
    target(problems, config, path, route, service);
    if let Some(redirect) = &route.redirect {
        self::redirect(problems, &join(path, "redirect"), route, redirect);
    }
    if let Some(respond) = &route.respond {
        answer(problems, &join(path, "respond"), respond);
    }
    if let Some(rewrite) = &route.rewrite {
        self::rewrite(problems, &join(path, "rewrite"), route, rewrite);
    }
    changes(
        problems,
        &join(path, "request_headers"),
        &route.request_headers,
    );
    changes(
        problems,
        &join(path, "response_headers"),
        &route.response_headers,
    );
    if let Some(hash_on) = &route.hash_on {
        balance(
            problems,
            path,
            route.balance.unwrap_or(service.http.balance),
            hash_on,
        );
    }
    if let Some(sticky) = &route.sticky {
        self::sticky(problems, config, &join(path, "sticky"), sticky);
    }
    for (key, value) in [
        ("response", route.timeouts.response),
        ("idle", route.timeouts.idle),
        ("tunnel", route.timeouts.tunnel),
        ("total", route.timeouts.total),
    ] {
        if let Some(value) = value {
            problems.check_duration(&join(path, "timeouts"), key, value);
        }
    }
    if let Some(retries) = &route.retries {
        self::retries(problems, &join(path, "retries"), retries);
    }
    limits::rates(problems, path, &route.rate_limits);
}

/// Which requests.
fn conditions(problems: &mut Problems, path: &str, route: &Route) {
    let mut seen = BTreeSet::new();
    for (index, host) in route.hosts.iter().enumerate() {
        let field = format!("{path}.hosts[{index}]");
        names::host(problems, field.clone(), host, true);
        if !seen.insert(host.to_ascii_lowercase()) {
            problems.add(field, host, "each host only once");
        }
    }
    let paths = [
        ("path", &route.path),
        ("path_prefix", &route.path_prefix),
        ("path_regex", &route.path_regex),
    ];
    let given = paths
        .iter()
        .filter_map(|(key, path)| Some((key, path.as_ref()?)));
    if let Some((key, value)) = given.clone().nth(1) {
        let expected = "only one of path, path_prefix and path_regex";
        problems.add(join(path, key), value, expected);
    }
    for (key, value) in given {
        match *key {
            "path_regex" => names::regex(problems, join(path, key), value),
            _ => names::path(problems, join(path, key), value, false),
        }
    }
    for (index, method) in route.methods.iter().enumerate() {
        names::method(problems, format!("{path}.methods[{index}]"), method);
    }
    texts(
        problems,
        &join(path, "headers"),
        &route.headers,
        names::read_name,
    );
    texts(
        problems,
        &join(path, "cookies"),
        &route.cookies,
        names::cookie,
    );
    texts(
        problems,
        &join(path, "query"),
        &route.query,
        |problems, field, name| {
            if name.is_empty() {
                problems.add(field, name, "a parameter's name");
            }
        },
    );
}

fn texts(
    problems: &mut Problems,
    path: &str,
    texts: &BTreeMap<String, TextMatch>,
    check_name: impl Fn(&mut Problems, String, &str),
) {
    for (name, text) in texts {
        let field = join(path, name);
        check_name(problems, field.clone(), name);
        if let TextMatch::Regex(expression) = text {
            names::regex(problems, join(&field, "regex"), expression);
        }
    }
}

/// One thing becomes of its requests, and pools exist.
fn target(problems: &mut Problems, config: &Config, path: &str, route: &Route, service: &Service) {
    let targets = [
        ("pool", route.pool.is_some()),
        ("pools", !route.pools.is_empty()),
        ("redirect", route.redirect.is_some()),
        ("respond", route.respond.is_some()),
    ];
    let given = targets.iter().filter(|(_, given)| *given);
    let keys: Vec<&str> = given.map(|(key, _)| *key).collect();
    if let [first, second, ..] = keys[..] {
        let expected = "only one of pool, pools, redirect and respond";
        problems.add(path, format!("{first} and {second}"), expected);
    }
    if let Some(pool) = &route.pool {
        check_pool(problems, config, &join(path, "pool"), service, pool);
    }
    let weights = join(path, "pools");
    for pool in route.pools.keys() {
        check_pool(problems, config, &join(&weights, pool), service, pool);
    }
    if !route.pools.is_empty() && route.pools.values().all(|weight| *weight == 0) {
        problems.add(&weights, "0", "at least one pool with a weight above 0");
    }
    let own = route.redirect.is_some() || route.respond.is_some();
    for (key, given) in [
        ("rewrite", route.rewrite.is_some()),
        ("mirror", route.mirror.is_some()),
    ] {
        if own && given {
            let expected = "no such field with redirect or respond, which no backend sees";
            problems.add(join(path, key), "a table", expected);
        }
    }
    if let Some(mirror) = &route.mirror {
        let path = join(path, "mirror");
        check_pool(
            problems,
            config,
            &join(&path, "pool"),
            service,
            &mirror.pool,
        );
        problems.check_number(&path, "percent", mirror.percent);
    }
}

fn redirect(problems: &mut Problems, path: &str, route: &Route, redirect: &Redirect) {
    if ![301, 302, 303, 307, 308].contains(&redirect.status) {
        problems.add(
            join(path, "status"),
            redirect.status,
            "301, 302, 303, 307 or 308",
        );
    }
    if let Some(host) = &redirect.host {
        names::host(problems, join(path, "host"), host, false);
    }
    if let Some(port) = redirect.port {
        problems.check_number(path, "port", port.into());
    }
    let Redirect {
        scheme,
        host,
        port,
        path: to,
        path_prefix,
        ..
    } = redirect;
    let changes = scheme.is_some() || host.is_some() || port.is_some();
    if !changes && to.is_none() && path_prefix.is_none() {
        let expected = "at least one of scheme, host, port, path and path_prefix";
        problems.add(path, "nothing to change", expected);
    }
    paths(problems, path, route, to.as_deref(), path_prefix.as_deref());
}

fn rewrite(problems: &mut Problems, path: &str, route: &Route, rewrite: &Rewrite) {
    paths(
        problems,
        path,
        route,
        rewrite.path.as_deref(),
        rewrite.path_prefix.as_deref(),
    );
    if let Some(template) = &rewrite.path_regex {
        let field = join(path, "path_regex");
        if route.path_regex.is_none() {
            problems.add(
                &field,
                template,
                "no such field unless the route has a path_regex",
            );
        }
        if rewrite.path.is_some() || rewrite.path_prefix.is_some() {
            problems.add(
                &field,
                template,
                "only one of path, path_prefix and path_regex",
            );
        }
        names::path(problems, field, template, true);
    }
    if let Some(host) = &rewrite.host {
        let authority = axum::http::uri::Authority::try_from(host.as_str());
        if authority.is_err() || host.contains('@') {
            let expected = "a host, such as app.internal or app.internal:8080";
            problems.add(join(path, "host"), host, expected);
        }
    }
}

/// A new path, whole or in the place of the prefix.
fn paths(
    problems: &mut Problems,
    path: &str,
    route: &Route,
    whole: Option<&str>,
    prefix: Option<&str>,
) {
    if let Some(whole) = whole {
        names::path(problems, join(path, "path"), whole, true);
    }
    if let Some(prefix) = prefix {
        let field = join(path, "path_prefix");
        if whole.is_some() {
            problems.add(&field, prefix, "only one of path and path_prefix");
        }
        if route.path_prefix.is_none() {
            problems.add(
                &field,
                prefix,
                "no such field unless the route has a path_prefix",
            );
        }
        names::path(problems, field, prefix, false);
    }
}

pub(super) fn changes(problems: &mut Problems, path: &str, changes: &HeaderChanges) {
    for (index, name) in changes.remove.iter().enumerate() {
        names::header_name(problems, format!("{path}.remove[{index}]"), name);
    }
    for (key, values) in [("set", &changes.set), ("add", &changes.add)] {
        for (name, value) in values {
            let field = join(&join(path, key), name);
            names::header_name(problems, field.clone(), name);
            names::value(problems, field, value);
        }
    }
}
