//! Rules of names and values that go into HTTP messages.

use axum::http::{HeaderName, HeaderValue, Method};

use super::Problems;

/// Headers that belong to the connection or frame the message: Weir makes them itself.
const OWN: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Headers that say who the client is.
const CLIENT: [&str; 5] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
];

/// A header's name that may be changed.
pub(super) fn header_name(problems: &mut Problems, field: String, name: &str) {
    let expected = match HeaderName::try_from(name) {
        Err(_) => "a header's name: letters, digits and '-'",
        Ok(known) if known == "host" => "another header: `rewrite.host` changes the host",
        Ok(known) if OWN.contains(&known.as_str()) => {
            "another header: this one is the connection's own"
        }
        Ok(_) => return,
    };
    problems.add(field, name, expected);
}

/// The name of a header in which Weir itself says something, and which says nothing else.
pub(in crate::config::check) fn own_name(problems: &mut Problems, field: String, name: &str) {
    if CLIENT.iter().any(|known| name.eq_ignore_ascii_case(known)) {
        let expected = "another header: this one says who the client is (`forwarded.headers`)";
        return problems.add(field, name, expected);
    }
    header_name(problems, field, name);
}

/// A header's name that is only read.
pub(super) fn read_name(problems: &mut Problems, field: String, name: &str) {
    if HeaderName::try_from(name).is_err() {
        problems.add(field, name, "a header's name: letters, digits and '-'");
    }
}

pub(super) fn value(problems: &mut Problems, field: String, value: &str) {
    let printable = value.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if !printable || value.trim() != value || HeaderValue::from_str(value).is_err() {
        let expected = "a header's value: printable ASCII without spaces at its ends";
        problems.add(field, value, expected);
    }
}

/// Tokens have the letters that headers' names have.
pub(super) fn token(problems: &mut Problems, field: String, token: &str, expected: &str) {
    if HeaderName::try_from(token).is_err() {
        problems.add(field, token, expected);
    }
}

pub(super) fn cookie(problems: &mut Problems, field: String, name: &str) {
    token(
        problems,
        field,
        name,
        "a cookie's name: letters, digits, '_' and '-'",
    );
}

pub(super) fn method(problems: &mut Problems, field: String, method: &str) {
    let upper = !method.bytes().any(|b| b.is_ascii_lowercase());
    if method == "CONNECT" {
        problems.add(field, method, "another method: CONNECT is always refused");
    } else if !upper || Method::from_bytes(method.as_bytes()).is_err() {
        problems.add(field, method, "a method such as GET, in capitals");
    }
}

/// A host's name or address, without port; with `*.` before it where wildcards may be.
pub(in crate::config::check) fn host(
    problems: &mut Problems,
    field: String,
    host: &str,
    wildcards: bool,
) {
    let name = match host.strip_prefix("*.") {
        Some(name) if wildcards => name,
        _ => host,
    };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && (label.bytes()).all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let ok = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.len() <= 253 && name.split('.').all(label),
    };
    if !ok {
        let expected = match wildcards {
            true => "a host without port, such as www.example.org or *.example.org",
            false => "a host without port, such as www.example.org",
        };
        problems.add(field, host, expected);
    }
}

/// A path as requests have it; with a query only where one may be.
pub(super) fn path(problems: &mut Problems, field: String, path: &str, query: bool) {
    let ok = path.starts_with('/')
        && (query || !path.contains('?'))
        && !path.contains('#')
        && path.bytes().all(|b| b.is_ascii_graphic())
        && axum::http::uri::PathAndQuery::try_from(path).is_ok();
    if !ok {
        let expected = match query {
            true => "a path that begins with '/', without spaces and '#'",
            false => "a path that begins with '/', without spaces, '?' and '#'",
        };
        problems.add(field, path, expected);
    }
}

pub(super) fn regex(problems: &mut Problems, field: String, expression: &str) {
    if let Err(error) = crate::proxy::regex(expression) {
        // The last line says what; those before draw where.
        let error = error.to_string();
        let why = error.lines().last().unwrap_or_default();
        let why = why.trim_start_matches("error: ");
        problems.add(field, expression, format!("a regular expression: {why}"));
    }
}
