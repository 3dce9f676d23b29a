//! Rules of `services.NAME.http` and `pools.NAME.http`.

use std::collections::BTreeSet;

use super::{Config, Problems, tls};
use crate::config::{
    Service,
    http::{AccessLog, Answer, Balance, Http, Key, Retries, SameSite, Sticky, Timeouts},
    problem::join,
};

mod limits;
mod names;
mod pool;
mod route;

pub(super) use names::{host, own_name};
pub(super) use pool::check as pool;

/// Bytes of an answer's body in the configuration.
const BODY: usize = 64 << 10;

pub(super) fn check(problems: &mut Problems, config: &Config, path: &str, service: &Service) {
    let http = &service.http;
    for (name, route) in &http.routes {
        let path = join(&join(path, "routes"), name);
        route::check(problems, config, &path, name, route, service);
    }
    balance(problems, path, http.balance, &http.hash_on);
    if let Some(sticky) = &http.sticky {
        self::sticky(problems, config, &join(path, "sticky"), sticky);
    }
    timeouts(problems, &join(path, "timeouts"), &http.timeouts);
    retries(problems, &join(path, "retries"), &http.retries);
    limits::check(problems, &join(path, "limits"), &http.limits);
    limits::rates(problems, path, &http.rate_limits);
    answer(problems, &join(path, "unavailable"), &http.unavailable);
    client(problems, path, http);
    if let Some(log) = &http.access_log {
        access_log(problems, &join(path, "access_log"), log);
    }
    upgrades(problems, path, &http.upgrades);
    route::changes(
        problems,
        &join(path, "request_headers"),
        &http.request_headers,
    );
    route::changes(
        problems,
        &join(path, "response_headers"),
        &http.response_headers,
    );
}

fn balance(problems: &mut Problems, path: &str, balance: Balance, hash_on: &Key) {
    if balance != Balance::ConsistentHash && *hash_on != Key::Address {
        problems.add(
            join(path, "hash_on"),
            hash_on,
            "no such field without balance \"consistent-hash\"",
        );
    }
}

fn sticky(problems: &mut Problems, config: &Config, path: &str, sticky: &Sticky) {
    if sticky.enabled && config.agent.has_public_key() {
        let expected = "an agent.hash_key of your own (openssl rand -hex 16), the same on all \
                        nodes: with the default, which is public, anyone could make cookies";
        problems.add(path, "sessions that stay", expected);
    }
    names::cookie(problems, join(path, "cookie"), &sticky.cookie);
    let part = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && b != b';');
    if !sticky.path.starts_with('/') || !part(&sticky.path) {
        problems.add(
            join(path, "path"),
            &sticky.path,
            "a path that begins with '/', without ';'",
        );
    }
    if let Some(domain) = &sticky.domain {
        names::host(problems, join(path, "domain"), domain, false);
    }
    if let Some(age) = sticky.max_age {
        problems.check_duration(path, "max_age", age);
    }
    if sticky.same_site == SameSite::None && sticky.secure == Some(false) {
        let expected = "true, as browsers refuse same_site \"none\" without it";
        problems.add(join(path, "secure"), false, expected);
    }
}

fn timeouts(problems: &mut Problems, path: &str, timeouts: &Timeouts) {
    for (key, value) in [
        ("handshake", timeouts.handshake),
        ("header", timeouts.header),
        ("body", timeouts.body),
        ("keepalive", timeouts.keepalive),
        ("connect", timeouts.connect),
        ("response", timeouts.response),
        ("idle", timeouts.idle),
        ("tunnel", timeouts.tunnel),
        ("drain", timeouts.drain),
    ] {
        problems.check_duration(path, key, value);
    }
    if let Some(total) = timeouts.total {
        problems.check_duration(path, "total", total);
    }
}

fn retries(problems: &mut Problems, path: &str, retries: &Retries) {
    problems.check_number(path, "attempts", retries.attempts);
    problems.check_number(path, "budget_percent", retries.budget_percent);
    problems.check_size(path, "body_buffer", retries.body_buffer);
    if let Some(after) = retries.hedge_after {
        problems.check_duration(path, "hedge_after", after);
    }
    for status in &retries.statuses {
        problems.check_number(path, "statuses", (*status).into());
    }
}

fn answer(problems: &mut Problems, path: &str, answer: &Answer) {
    problems.check_number(path, "status", answer.status.into());
    names::value(problems, join(path, "content_type"), &answer.content_type);
    if answer.body.len() > BODY {
        let value = format!("{} bytes", answer.body.len());
        problems.add(join(path, "body"), value, format!("at most {BODY} bytes"));
    } else if !answer.body.is_empty() && matches!(answer.status, 204 | 205 | 304) {
        let expected = format!("none, as an answer of status {} has no body", answer.status);
        problems.add(join(path, "body"), &answer.body, expected);
    }
    if let Some(after) = answer.retry_after {
        problems.check_duration(path, "retry_after", after);
    }
}

/// What backends are told of clients.
fn client(problems: &mut Problems, path: &str, http: &Http) {
    own_name(
        problems,
        format!("{path}.request_id.header"),
        &http.request_id.header,
    );
    if let Some(one_in) = http.trace.one_in {
        problems.check_number(&join(path, "trace"), "one_in", one_in);
    }
    if let Some(via) = &http.via {
        names::token(
            problems,
            join(path, "via"),
            via,
            "a name for Via: letters, digits and '-'",
        );
    }
}

fn access_log(problems: &mut Problems, path: &str, log: &AccessLog) {
    if log.to != "stdout" && !log.to.starts_with('/') {
        problems.add(
            join(path, "to"),
            &log.to,
            "\"stdout\" or the absolute path of a file",
        );
    }
    problems.check_number(path, "one_in", log.one_in);
}

fn upgrades(problems: &mut Problems, path: &str, upgrades: &[String]) {
    let mut seen = BTreeSet::new();
    for (index, upgrade) in upgrades.iter().enumerate() {
        let field = format!("{path}.upgrades[{index}]");
        // A way around all routes and filters that proxies have often been tricked into.
        if upgrade.eq_ignore_ascii_case("h2c") {
            let expected = "another protocol: requests of an h2c tunnel would pass unseen";
            problems.add(field, upgrade, expected);
        } else if !seen.insert(upgrade.to_ascii_lowercase()) {
            problems.add(field, upgrade, "each protocol only once");
        } else {
            let expected = "a protocol's name as in Upgrade, such as \"websocket\"";
            names::token(problems, field, upgrade, expected);
        }
    }
}
