//! Headers that are for the next hop only (RFC 9110, 7.6.1).

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING, UPGRADE},
    request::Parts,
};
use thiserror::Error;

use super::list::items;

/// Headers that a `Connection` may name; honest clients name one or two.
const NOMINATIONS: usize = 16;

/// Why a request's `Connection` is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadConnection {
    /// It is no list of names.
    #[error("a Connection header that is no list of names")]
    Malformed,
    /// It names more than 16.
    #[error("a Connection header with more than {NOMINATIONS} names")]
    TooMany,
    /// It asks to take away a header that is for the backend.
    #[error("a Connection header that names {0}")]
    EndToEnd(HeaderName),
}

/// Those that go whether `Connection` names them or not. `TE` is looked at apart;
/// `Transfer-Encoding` is the parser's, which frames the message anew.
static HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What backends that make environment variables of headers take for their own proxy's address
/// (httpoxy).
const PROXY: HeaderName = HeaderName::from_static("proxy");

/// Whether a request has any header that [`upgrade`] or [`strip_request`] looks for.
pub fn has_any(headers: &HeaderMap) -> bool {
    // A look at the names that there are finds it sooner than asking for each that may be.
    let here = |name: &HeaderName| HOP_BY_HOP.contains(name) || [EXPECT, TE, PROXY].contains(name);
    headers.keys().any(here)
}

/// A protocol that the client asks to go on with (RFC 9110, 7.8), if it is one of `allowed`. Ask
/// before [`strip_request`] takes the wish away. Only from HTTP/1.1, without a body, and for one
/// protocol, as anything else may be read differently by the backend.
pub fn upgrade(parts: &Parts, allowed: &[String]) -> Option<HeaderValue> {
    let headers = &parts.headers;
    if headers.get(UPGRADE).is_none()
        || parts.version != Version::HTTP_11
        || headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0")
        || !names(headers, "upgrade")
    {
        return None;
    }
    let mut asked = headers.get_all(UPGRADE).iter();
    let protocol = asked.next()?;
    let known = |name: &String| protocol.as_bytes().eq_ignore_ascii_case(name.as_bytes());
    (asked.next().is_none() && allowed.iter().any(known)).then(|| protocol.clone())
}

/// Whether whoever sends an HTTP/1 message sends no other behind it (RFC 9112, 9.3 and 9.6).
pub fn is_last(version: Version, headers: &HeaderMap) -> bool {
    names(headers, "close") || version == Version::HTTP_10 && !names(headers, "keep-alive")
}

/// Takes away what is between the client and Weir. Of `TE` it leaves `trailers`, without which
/// gRPC's servers send none.
///
/// # Errors
///
/// A `Connection` that honest clients do not send; the headers are then half changed.
pub fn strip_request(headers: &mut HeaderMap) -> Result<(), BadConnection> {
    if headers.contains_key(CONNECTION) {
        strip_nominated(headers)?;
    }
    headers.remove(PROXY);
    // Who asks for it is told to go on when the body is first wanted.
    headers.remove(EXPECT);
    if let Some(te) = headers.get(TE) {
        let trailers = te.to_str().is_ok_and(|te| {
            te.split(',')
                .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
        });
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    strip_known(headers);
    Ok(())
}

/// Takes away what is between a backend and Weir. A `Connection` that is no list of names is
/// taken away as far as it is one.
pub fn strip_response(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let names: Vec<HeaderName> = options(headers)
            .filter_map(|option| HeaderName::from_bytes(option).ok())
            .filter(|name| !is_end_to_end(name))
            .collect();
        for name in names {
            headers.remove(name);
        }
    }
    strip_known(headers);
}

/// Takes away what HTTP/2 has no place for (RFC 9113, 8.2.2), whoever has put it in an answer.
pub fn strip_for_http2(headers: &mut HeaderMap) {
    headers.remove(TE);
    strip_known(headers);
}

/// Whether a header, whose name is as it was sent, goes whether `Connection` names it or not.
pub fn is_of_this_hop(name: &[u8]) -> bool {
    let same = |known: &HeaderName| known.as_str().as_bytes().eq_ignore_ascii_case(name);
    // Few others are as long as these.
    matches!(name.len(), 7 | 10 | 14 | 16..=19) && HOP_BY_HOP.iter().any(same)
}

fn strip_known(headers: &mut HeaderMap) {
    // Most messages have none or one: a look at the names that there are finds it sooner than
    // asking for each that may be.
    while let Some(name) = headers.keys().find(|name| HOP_BY_HOP.contains(name)) {
        let name = name.clone();
        headers.remove(name);
    }
}

fn strip_nominated(headers: &mut HeaderMap) -> Result<(), BadConnection> {
    // Nearly always one of these, which name nothing that would have to go.
    let harmless = |option: &[u8]| {
        [&b"keep-alive"[..], b"close", b"upgrade"]
            .iter()
            .any(|known| option.eq_ignore_ascii_case(known))
    };
    let mut names = Vec::new();
    let mut count = 0;
    for option in options(headers) {
        count += 1;
        if count > NOMINATIONS {
            return Err(BadConnection::TooMany);
        }
        if !harmless(option) {
            let name = HeaderName::from_bytes(option).map_err(|_| BadConnection::Malformed)?;
            if is_end_to_end(&name) {
                return Err(BadConnection::EndToEnd(name));
            }
            // What `TE` says is read below.
            if name != TE {
                names.push(name);
            }
        }
    }
    for name in names {
        headers.remove(name);
    }
    Ok(())
}

/// Whether a `Connection` header names this.
fn names(headers: &HeaderMap, what: &str) -> bool {
    options(headers).any(|option| option.eq_ignore_ascii_case(what.as_bytes()))
}

/// The names in all `Connection` headers; empty ones are allowed in a list (RFC 9110, 5.6.1) and
/// left out.
fn options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    items(headers, &CONNECTION).filter(|option| !option.is_empty())
}

/// Headers that say something to the backend, or by which it decides whom to trust: whoever asks
/// to take them away wants to hide them from it.
fn is_end_to_end(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "host"
            | "authorization"
            | "cache-control"
            | "cookie"
            | "expect"
            | "forwarded"
            | "origin"
            | "referer"
            | "set-cookie"
            | "traceparent"
            | "tracestate"
            | "transfer-encoding"
            | "via"
            | "x-real-ip"
            | "x-request-id"
    ) || [
        "x-forwarded-",
        "x-client-",
        "client-cert",
        "content-",
        "if-",
        "sec-",
    ]
    .iter()
    .any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use proptest::prelude::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), value.parse().unwrap())
        };
        pairs
            .iter()
            .map(pair)
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    #[test]
    fn the_last_message_is_known() {
        let last = |version, pairs: &[_]| is_last(version, &headers(pairs));
        assert!(!last(Version::HTTP_11, &[]));
        assert!(!last(Version::HTTP_11, &[("connection", "keep-alive")]));
        assert!(last(Version::HTTP_11, &[("connection", "x-mine, Close")]));
        assert!(last(Version::HTTP_10, &[]));
        assert!(!last(Version::HTTP_10, &[("connection", "Keep-Alive")]));
        assert!(last(
            Version::HTTP_10,
            &[("connection", "keep-alive, close")]
        ));
    }

    #[test]
    fn hop_by_hop_headers_go() {
        let mut map = headers(&[
            ("connection", "keep-alive, X-Mine ,, "),
            ("connection", "upgrade, te"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy", "http://evil.org"),
            ("upgrade", "websocket"),
            ("te", "gzip;q=0.5, Trailers"),
            ("trailer", "x-sum"),
            ("accept", "*/*"),
        ]);
        assert_eq!(strip_request(&mut map), Ok(()));
        let left = headers(&[("te", "trailers"), ("trailer", "x-sum"), ("accept", "*/*")]);
        assert_eq!(map, left);

        let mut map = headers(&[
            ("connection", "x-mine, bad name, set-cookie"),
            ("x-mine", "1"),
            ("set-cookie", "a=b"),
            ("transfer-encoding", "chunked"),
        ]);
        strip_response(&mut map);
        assert_eq!(map, headers(&[("set-cookie", "a=b")]));
    }

    #[test]
    fn dishonest_connections_are_refused() {
        let refuse = |value: &str| strip_request(&mut headers(&[("connection", value)]));
        for name in [
            "Host",
            "X-Forwarded-For",
            "forwarded",
            "Authorization",
            "cookie",
            "content-length",
            "transfer-encoding",
            "X-Client-Subject",
            "x-real-ip",
        ] {
            let expected = BadConnection::EndToEnd(name.parse().unwrap());
            assert_eq!(refuse(&format!("close, {name}")), Err(expected));
        }
        for value in ["a b", ":authority", "a;b", "\"close\"", "close keep-alive"] {
            assert_eq!(refuse(value), Err(BadConnection::Malformed), "{value}");
        }
        assert_eq!(refuse(&["a"; 16].join(",")), Ok(()));
        assert_eq!(refuse(&["a"; 17].join(",")), Err(BadConnection::TooMany));
    }

    #[test]
    fn upgrades() {
        let allowed = ["websocket".to_owned()];
        let asks = |method: &str, pairs: &[(&str, &str)]| {
            let (mut parts, ()) = Request::builder()
                .method(method)
                .body(())
                .unwrap()
                .into_parts();
            parts.headers = headers(pairs);
            upgrade(&parts, &allowed).is_some()
        };
        let good = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
        ];
        assert!(asks("GET", &good));
        assert!(asks("POST", &good));
        for more in [
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
        ] {
            assert!(!asks("GET", &[&good[..], &[more]].concat()), "{more:?}");
        }
        assert!(!asks(
            "GET",
            &[("connection", "close"), ("upgrade", "websocket")]
        ));
        assert!(!asks(
            "GET",
            &[("connection", "upgrade"), ("upgrade", "h2c")]
        ));
        assert!(!asks(
            "GET",
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")]
        ));
    }

    proptest! {
        #[test]
        fn nothing_nominated_is_left(names in prop::collection::vec("[a-z]{1,8}", 1..20)) {
            let mut map = HeaderMap::new();
            for name in &names {
                map.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("1"));
            }
            map.insert(CONNECTION, names.join(", ").parse().unwrap());
            let before = map.clone();
            match strip_request(&mut map) {
                Ok(()) => prop_assert!(map.is_empty(), "{:?}", map),
                Err(BadConnection::TooMany) => prop_assert!(names.len() > NOMINATIONS),
                Err(BadConnection::EndToEnd(name)) => prop_assert!(before.contains_key(name)),
                Err(BadConnection::Malformed) => prop_assert!(false),
            }
        }
    }
}
