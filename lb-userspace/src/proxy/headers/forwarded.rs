//! What backends are told of the client, and whom Weir believes about it.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};

use crate::config::http::{Forwarded as Config, ForwardedHeaders};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// How a request came to Weir.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// Who sent it: the connection's other end, or what its PROXY header says.
    pub peer: IpAddr,
    /// The same as [`text`].
    pub peer_text: &'a HeaderValue,
    /// The port that it came to.
    pub port: &'a HeaderValue,
    /// Whether by TLS.
    pub tls: bool,
    /// The host asked for, with its port if it has one.
    pub host: Option<&'a HeaderValue>,
}

/// An address as it is written in `X-Forwarded-For`.
pub fn text(address: IpAddr) -> HeaderValue {
    let text = Bytes::from(address.to_canonical().to_string());
    // An address has no bytes but those that a value may have.
    HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("unknown"))
}

impl Config {
    /// Whether a hop's own headers are believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// The client's address: the last that is not a trusted hop. Ask before [`Self::strip`]. What
    /// is no address ends the search, as nobody can say who is behind it.
    pub fn client(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        let mut client = peer;
        if !self.trusts(peer) {
            return client;
        }
        let rfc7239 = match self.headers {
            ForwardedHeaders::Forwarded => true,
            ForwardedHeaders::Both => !headers.contains_key(FOR),
            ForwardedHeaders::XForwarded | ForwardedHeaders::None => false,
        };
        let name = if rfc7239 { FORWARDED } else { FOR };
        let mut said: Vec<&str> = Vec::new();
        for value in headers.get_all(name) {
            said.extend(value.to_str().unwrap_or_default().split(','));
        }
        for hop in said.into_iter().rev() {
            let address = match rfc7239 {
                true => parameter(hop, "for").and_then(address),
                false => address(hop),
            };
            match address {
                Some(address) => client = address,
                None => break,
            }
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    /// Takes away what is not to be believed, or not said, of what a hop says of the client.
    pub fn strip(&self, headers: &mut HeaderMap, hop: IpAddr) {
        let (x, rfc7239) = self.said();
        let trusted = self.trusts(hop);
        strip(headers, trusted && x, trusted && rfc7239);
    }

    /// Adds this hop, after [`Self::strip`]. What is said of the protocol, the host and the port
    /// is left as it is.
    pub fn add(&self, headers: &mut HeaderMap, hop: &Hop<'_>) {
        let (x, rfc7239) = self.said();
        if x {
            add_x_forwarded(headers, hop);
        }
        if rfc7239 {
            add_forwarded(headers, hop);
        }
    }

    /// Whether after [`Self::strip`] nothing is to be added but [`Hop::x_forwarded`], as it is.
    pub fn is_plain(&self, hop: IpAddr) -> bool {
        self.headers == ForwardedHeaders::XForwarded && !self.trusts(hop)
    }

    /// Whether `X-Forwarded-*` are said, and whether `Forwarded` is.
    fn said(&self) -> (bool, bool) {
        match self.headers {
            ForwardedHeaders::XForwarded => (true, false),
            ForwardedHeaders::Forwarded => (false, true),
            ForwardedHeaders::Both => (true, true),
            ForwardedHeaders::None => (false, false),
        }
    }
}

impl<'a> Hop<'a> {
    /// What it is in `X-Forwarded-*`, where nothing was said before.
    pub fn x_forwarded(&self) -> impl Iterator<Item = (HeaderName, &'a HeaderValue)> + use<'a> {
        static HTTP: HeaderValue = HeaderValue::from_static("http");
        static HTTPS: HeaderValue = HeaderValue::from_static("https");
        let proto = if self.tls { &HTTPS } else { &HTTP };
        let host = self.host.filter(|host| !host.is_empty());
        let all = [
            (FOR, Some(self.peer_text)),
            (PROTO, Some(proto)),
            (HOST, host),
            (PORT, Some(self.port)),
        ];
        let said = |(name, value): (_, Option<_>)| Some((name, value?));
        all.into_iter().filter_map(said)
    }
}

/// Takes away all that say who the client was, but those that are kept; with `_` for `-` too, as
/// some backends cannot tell them apart.
fn strip(headers: &mut HeaderMap, keep_x: bool, keep_forwarded: bool) {
    let says_who = |name: &HeaderName| {
        let bytes = name.as_str().as_bytes();
        let begins = |start: &[u8]| {
            bytes.len() >= start.len()
                && (bytes.iter().zip(start)).all(|(b, s)| b == s || (*b == b'_' && *s == b'-'))
        };
        let underscored = bytes.contains(&b'_');
        match name.as_str() {
            "forwarded" => !keep_forwarded,
            _ if begins(b"x-forwarded-") => underscored || !keep_x,
            _ => name == REAL_IP || (underscored && begins(b"x-real-ip")),
        }
    };
    let gone: Vec<HeaderName> = headers
        .keys()
        .filter(|name| says_who(name))
        .cloned()
        .collect();
    for name in gone {
        headers.remove(name);
    }
}

fn add_x_forwarded(headers: &mut HeaderMap, hop: &Hop<'_>) {
    for (name, value) in hop.x_forwarded() {
        if name == FOR {
            join(headers, name, value.clone());
        } else {
            headers.entry(name).or_insert_with(|| value.clone());
        }
    }
}

fn add_forwarded(headers: &mut HeaderMap, hop: &Hop<'_>) {
    let mut element = match hop.peer.to_canonical() {
        IpAddr::V4(v4) => format!("for={v4}"),
        // Brackets and colons are no token.
        IpAddr::V6(v6) => format!("for=\"[{v6}]\""),
    };
    let host = hop.host.and_then(|host| host.to_str().ok());
    if let Some(host) = host.filter(|host| !host.is_empty()) {
        element += &format!(";host=\"{host}\"");
    }
    element += if hop.tls {
        ";proto=https"
    } else {
        ";proto=http"
    };
    // Of bytes that a value may have, as its parts are.
    if let Ok(element) = HeaderValue::from_maybe_shared(Bytes::from(element)) {
        join(headers, FORWARDED, element);
    }
}

/// Adds to a list, in one header.
fn join(headers: &mut HeaderMap, name: HeaderName, last: HeaderValue) {
    let mut list = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    if list.is_empty() {
        headers.insert(name, last);
        return;
    }
    list.extend_from_slice(last.as_bytes());
    // Always, as the parts are.
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(list)) {
        headers.insert(name, value);
    }
}

/// The value of a parameter of an element of `Forwarded`, without its quotes.
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let value = element
        .split(';')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())?;
    Some((value.strip_prefix('"').and_then(|v| v.strip_suffix('"'))).unwrap_or(value))
}

/// An address, perhaps with a port or in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    (bare.unwrap_or(text).parse().ok())
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Network;
    use proptest::prelude::*;

    fn config(headers: ForwardedHeaders, trusted: &[&str]) -> Config {
        let network = |text: &&str| Network::try_from((*text).to_owned()).unwrap();
        Config {
            headers,
            trusted: trusted.iter().map(network).collect(),
        }
    }

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        map
    }

    fn hop(peer: &str) -> Hop<'static> {
        let peer = peer.parse().unwrap();
        let value = |value| &*Box::leak(Box::new(value));
        Hop {
            peer,
            peer_text: value(text(peer)),
            port: value(HeaderValue::from(443u16)),
            tls: true,
            host: Some(value(HeaderValue::from_static("a.org:8443"))),
        }
    }

    fn apply(config: &Config, headers: &mut HeaderMap, hop: &Hop<'_>) {
        config.strip(headers, hop.peer);
        config.add(headers, hop);
    }

    #[test]
    fn clients_are_not_believed() {
        let mut headers = map(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("X_Forwarded_For", "1.2.3.4"),
            ("x-forwarded-user", "admin"),
            ("x-real-ip", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("accept", "*/*"),
        ]);
        let both = config(ForwardedHeaders::Both, &["10.0.0.0/8"]);
        let peer = hop("192.0.2.1");
        assert_eq!(both.client(&headers, peer.peer), peer.peer);
        apply(&both, &mut headers, &peer);
        let expected = map(&[
            ("accept", "*/*"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a.org:8443"),
            ("x-forwarded-port", "443"),
            ("forwarded", "for=192.0.2.1;host=\"a.org:8443\";proto=https"),
        ]);
        assert_eq!(headers, expected);
        apply(&config(ForwardedHeaders::None, &[]), &mut headers, &peer);
        assert_eq!(headers, map(&[("accept", "*/*")]));
    }

    #[test]
    fn trusted_hops_are() {
        let x = config(
            ForwardedHeaders::XForwarded,
            &["10.0.0.0/8", "2001:db8::/32"],
        );
        let mut headers = map(&[
            ("x-forwarded-for", "6.6.6.6, 1.2.3.4"),
            ("x-forwarded-for", "10.0.0.7"),
            ("x-forwarded-proto", "http"),
        ]);
        let peer = hop("10.0.0.1");
        assert_eq!(x.client(&headers, peer.peer), IpAddr::from([1, 2, 3, 4]));
        apply(&x, &mut headers, &peer);
        assert_eq!(
            headers["x-forwarded-for"],
            "6.6.6.6, 1.2.3.4, 10.0.0.7, 10.0.0.1"
        );
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert!(!headers.contains_key("forwarded"));

        let unknown = map(&[("x-forwarded-for", "1.2.3.4, unknown, 10.0.0.7")]);
        assert_eq!(x.client(&unknown, peer.peer), IpAddr::from([10, 0, 0, 7]));

        let rfc = config(ForwardedHeaders::Forwarded, &["2001:db8::/32"]);
        let mut headers = map(&[(
            "forwarded",
            "For=\"[2001:db9::1]:4711\";proto=http, for=\"[2001:db8::2]\"",
        )]);
        let peer = hop("2001:db8::1");
        assert_eq!(
            rfc.client(&headers, peer.peer),
            "2001:db9::1".parse::<IpAddr>().unwrap()
        );
        apply(&rfc, &mut headers, &peer);
        let said = headers["forwarded"].to_str().unwrap();
        assert!(
            said.ends_with(", for=\"[2001:db8::1]\";host=\"a.org:8443\";proto=https"),
            "{said}"
        );
    }

    proptest! {
        /// Whatever is said, the client is an untrusted one only if a chain of trusted hops vouches.
        #[test]
        fn no_chain_is_skipped(chain in prop::collection::vec(0..4u8, 0..6)) {
            let config = config(ForwardedHeaders::XForwarded, &["10.0.0.0/8"]);
            let said = |n: &u8| match n {
                0 | 1 => format!("10.0.0.{n}"),
                2 => "192.0.2.2".to_owned(),
                _ => "unknown".to_owned(),
            };
            let list: Vec<String> = chain.iter().map(said).collect();
            let headers = map(&[("x-forwarded-for", &*list.join(", "))]);
            let client = config.client(&headers, [10, 0, 0, 9].into());
            let stop = chain.iter().rposition(|n| *n >= 2);
            let expected = match stop {
                Some(at) if chain[at] == 2 => said(&2),
                Some(at) => chain.get(at + 1).map_or("10.0.0.9".into(), said),
                None => chain.first().map_or("10.0.0.9".into(), said),
            };
            prop_assert_eq!(client.to_string(), expected);
        }
    }
}
