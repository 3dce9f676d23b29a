//! One host for a request, whichever way it was said (RFC 9112, 3.2; RFC 9113, 8.3.1).

use http::{
    HeaderMap, HeaderValue, Method, Uri, Version,
    header::HOST,
    request::Parts,
    uri::{Authority, PathAndQuery},
};
use thiserror::Error;

/// Why a request's target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadTarget {
    /// CONNECT: Weir is no forward proxy. Answered with 405, the others with 400.
    #[error("the method CONNECT")]
    Connect,
    /// No host.
    #[error("no Host")]
    NoHost,
    /// More than one `Host`.
    #[error("more than one Host")]
    ManyHosts,
    /// A host that is none.
    #[error("a Host that is no host")]
    BadHost,
    /// HTTP/2 with a `Host` that is not `:authority`.
    #[error("a Host that differs from :authority")]
    TwoHosts,
    /// A target that is neither a path nor a URL.
    #[error("a target that is no path")]
    NoPath,
}

/// Makes the request say its host in one place, `Host`, and its target in origin form. A URL's
/// host comes before `Host` in HTTP/1, as RFC 9112 has it; in HTTP/2 they must be equal. HTTP/1.0
/// may have none.
///
/// # Errors
///
/// What backends might understand in another way; the request is then unchanged.
pub fn reconcile(parts: &mut Parts) -> Result<(), BadTarget> {
    if parts.method == Method::CONNECT {
        return Err(BadTarget::Connect);
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let said = hosts.next();
    if hosts.next().is_some() {
        return Err(BadTarget::ManyHosts);
    }
    if said.is_some_and(|host| !is_host(host.as_bytes(), parts.version)) {
        return Err(BadTarget::BadHost);
    }
    let path = path(&parts.uri, &parts.method)?;
    match parts.uri.authority() {
        Some(authority) => {
            if !is_host(authority.as_str().as_bytes(), Version::HTTP_11) {
                return Err(BadTarget::BadHost);
            }
            let differs =
                |host: &HeaderValue| !same(host.as_bytes(), authority.as_str().as_bytes());
            if parts.version == Version::HTTP_2 && said.is_some_and(differs) {
                return Err(BadTarget::TwoHosts);
            }
            let host = HeaderValue::from_str(authority.as_str()).map_err(|_| BadTarget::BadHost)?;
            parts.headers.insert(HOST, host);
            parts.uri = Uri::from(path);
        }
        None if said.is_none() && parts.version != Version::HTTP_10 => {
            return Err(BadTarget::NoHost);
        }
        None => {}
    }
    Ok(())
}

/// Gives a request another host, after [`reconcile`].
pub fn set_host(headers: &mut HeaderMap, host: &Authority) {
    if let Ok(host) = HeaderValue::from_str(host.as_str()) {
        headers.insert(HOST, host);
    }
}

/// The host of a request, with its port if it has one, after [`reconcile`]; empty if it has none.
pub fn host(headers: &HeaderMap) -> &str {
    (headers.get(HOST))
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default()
}

/// Path and query as the backend is to get them.
fn path(uri: &Uri, method: &Method) -> Result<PathAndQuery, BadTarget> {
    let root = PathAndQuery::from_static("/");
    match uri.path_and_query() {
        Some(path) if path.as_str() == "*" => match *method {
            Method::OPTIONS => Ok(path.clone()),
            _ => Err(BadTarget::NoPath),
        },
        Some(path) if path.path().starts_with('/') => Ok(path.clone()),
        // `http://host?x`, whose path is empty.
        Some(path) if path.as_str().starts_with('?') => {
            PathAndQuery::try_from(format!("/{path}")).map_err(|_| BadTarget::NoPath)
        }
        None if uri.scheme().is_some() => Ok(root),
        _ => Err(BadTarget::NoPath),
    }
}

/// Whether bytes are a name or an address, and perhaps a port; HTTP/1.0 may say an empty one.
fn is_host(host: &[u8], version: Version) -> bool {
    if host.is_empty() {
        return version == Version::HTTP_10;
    }
    let (name, port) = match host.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|b| *b == b']') else {
                return false;
            };
            let address = str::from_utf8(&rest[..end]).unwrap_or_default();
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (&b"6"[..], &rest[end + 1..])
        }
        None => host.split_at(host.iter().position(|b| *b == b':').unwrap_or(host.len())),
    };
    let named = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    let number = |port: &[u8]| port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    !name.is_empty()
        && name.iter().all(named)
        && (port.is_empty() || port.strip_prefix(b":").is_some_and(number))
}

/// The same host: in any case.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.eq_ignore_ascii_case(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    /// Host and target afterwards.
    fn reconciled(
        version: Version,
        method: &str,
        target: &str,
        hosts: &[&str],
    ) -> Result<(String, String), BadTarget> {
        let mut request = Request::builder()
            .version(version)
            .method(method)
            .uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        reconcile(&mut parts)?;
        assert!(parts.headers.get_all(HOST).iter().count() <= 1);
        Ok((host(&parts.headers).to_owned(), parts.uri.to_string()))
    }

    #[test]
    fn http1() {
        let get = |target: &str, hosts: &[&str]| reconciled(Version::HTTP_11, "GET", target, hosts);
        let ok = |host: &str, target: &str| Ok((host.to_owned(), target.to_owned()));
        assert_eq!(get("/a?b", &["a.org:80"]), ok("a.org:80", "/a?b"));
        assert_eq!(get("http://b.org/a", &["a.org"]), ok("b.org", "/a"));
        assert_eq!(get("http://b.org", &["a.org"]), ok("b.org", "/"));
        assert_eq!(get("http://b.org?x=1", &["a.org"]), ok("b.org", "/?x=1"));
        assert_eq!(get("/", &["[::1]:8080"]), ok("[::1]:8080", "/"));
        assert_eq!(get("/", &[]), Err(BadTarget::NoHost));
        assert_eq!(get("/", &["a", "a"]), Err(BadTarget::ManyHosts));
        for host in [
            "", "a@b", "a b", "a/b", "a,b", "a:b", "a:80:90", "[::1", "[x]", "a:123456", ":80",
            "a\\b", "a%00", "a?b",
        ] {
            assert_eq!(get("/", &[host]), Err(BadTarget::BadHost), "{host}");
        }
        assert_eq!(get("http://u@b.org/", &["b.org"]), Err(BadTarget::BadHost));
        assert_eq!(get("*", &["a"]), Err(BadTarget::NoPath));
        assert_eq!(get("a.org:80", &["a"]), Err(BadTarget::NoPath));
        let old = |hosts: &[&str]| reconciled(Version::HTTP_10, "GET", "/", hosts);
        assert_eq!(old(&[]), ok("", "/"));
        assert_eq!(old(&[""]), ok("", "/"));
        let options = reconciled(Version::HTTP_11, "OPTIONS", "*", &["a"]);
        assert_eq!(options, ok("a", "*"));
        let connect = reconciled(Version::HTTP_11, "CONNECT", "a.org:443", &["a.org"]);
        assert_eq!(connect, Err(BadTarget::Connect));
    }

    #[test]
    fn http2() {
        let get = |target: &str, hosts: &[&str]| reconciled(Version::HTTP_2, "GET", target, hosts);
        let ok = |host: &str, target: &str| Ok((host.to_owned(), target.to_owned()));
        assert_eq!(get("https://a.org/x?y", &[]), ok("a.org", "/x?y"));
        assert_eq!(get("https://a.org/x", &["A.org"]), ok("a.org", "/x"));
        assert_eq!(get("https://a.org/x", &["b.org"]), Err(BadTarget::TwoHosts));
        assert_eq!(get("/x", &["a.org"]), ok("a.org", "/x"));
        assert_eq!(get("/x", &[]), Err(BadTarget::NoHost));
    }
}
