//! From bytes to addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, SIGNATURE};

/// Bytes of a line of version 1 at most, its end included.
const LINE: usize = 107;
/// Bytes of a version 2 header after the first 16 at most: addresses and more than anyone adds.
const BODY: usize = 4096;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not yet a whole header.
    More,
    /// A header of so many bytes. Without addresses it says nothing of a client: the connection
    /// is the proxy's own, such as a health check, or of an unknown kind.
    Header {
        /// Bytes to take.
        len: usize,
        /// Who it is from.
        addresses: Option<Addresses>,
    },
    /// No header: why.
    Bad(&'static str),
}

/// Looks at all bytes that a connection has brought so far. At most 4,112 are needed.
pub fn parse(bytes: &[u8]) -> Parsed {
    let begins = |start: &[u8]| {
        let both = bytes.len().min(start.len());
        bytes[..both] == start[..both]
    };
    if begins(SIGNATURE) {
        version2(bytes)
    } else if begins(b"PROXY ") {
        version1(bytes)
    } else {
        Parsed::Bad("neither \"PROXY \" nor the signature of version 2")
    }
}

fn version1(bytes: &[u8]) -> Parsed {
    let window = &bytes[..bytes.len().min(LINE)];
    let Some(end) = memchr::memmem::find(window, b"\r\n") else {
        return match window.len() < LINE {
            true => Parsed::More,
            false => Parsed::Bad("a line of more than 107 bytes"),
        };
    };
    let len = end + 2;
    let line = str::from_utf8(&window[..end]).unwrap_or_default();
    let mut words = line.split(' ').skip(1);
    let addresses = match words.next() {
        Some("UNKNOWN") => {
            return Parsed::Header {
                len,
                addresses: None,
            };
        }
        Some("TCP4") => pair::<Ipv4Addr>(words),
        Some("TCP6") => pair::<Ipv6Addr>(words),
        _ => None,
    };
    match addresses {
        Some(addresses) => Parsed::Header {
            len,
            addresses: Some(addresses),
        },
        None => Parsed::Bad("not \"PROXY TCP4 source destination port port\""),
    }
}

fn pair<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Option<Addresses>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let source: A = words.next()?.parse().ok()?;
    let destination: A = words.next()?.parse().ok()?;
    let source = SocketAddr::new(source.into(), port(words.next()?)?);
    let destination = SocketAddr::new(destination.into(), port(words.next()?)?);
    let whole = words.next().is_none();
    whole.then_some(Addresses {
        source,
        destination,
    })
}

/// A port without a sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn version2(bytes: &[u8]) -> Parsed {
    let [version_command, kind, high, low] = match bytes.get(12..16) {
        Some(fields) => [fields[0], fields[1], fields[2], fields[3]],
        None => return Parsed::More,
    };
    let body_len = usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 {
        return Parsed::Bad("a version other than 2");
    }
    if body_len > BODY {
        return Parsed::Bad("a header of more than 4,112 bytes");
    }
    let len = 16 + body_len;
    let Some(body) = bytes.get(16..len) else {
        return Parsed::More;
    };
    let addresses = match (version_command & 15, kind >> 4) {
        (0, _) => None,
        (1, 1) => match body.first_chunk::<12>() {
            Some([s0, s1, s2, s3, d0, d1, d2, d3, ports @ ..]) => Some(addresses(
                [*s0, *s1, *s2, *s3],
                [*d0, *d1, *d2, *d3],
                *ports,
            )),
            None => return Parsed::Bad("too short for two IPv4 addresses"),
        },
        (1, 2) => match (body.first_chunk::<16>(), body.get(16..36)) {
            (Some(source), Some(rest)) => {
                let (destination, ports) = rest.split_at(16);
                let destination: [u8; 16] = destination.try_into().unwrap_or_default();
                Some(addresses(
                    *source,
                    destination,
                    ports.try_into().unwrap_or_default(),
                ))
            }
            _ => return Parsed::Bad("too short for two IPv6 addresses"),
        },
        // Unix sockets, and what is unspecified.
        (1, 0 | 3) => None,
        (1, _) => return Parsed::Bad("an unknown address family"),
        _ => return Parsed::Bad("a command other than LOCAL and PROXY"),
    };
    Parsed::Header { len, addresses }
}

fn addresses<A: Into<IpAddr>>(source: A, destination: A, ports: [u8; 4]) -> Addresses {
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Addresses {
        source: SocketAddr::new(source.into(), port(0)),
        destination: SocketAddr::new(destination.into(), port(2)),
    }
}
