//! Headers against the specification's words, each other, and another implementation.

use ppp::PartialResult;
use proptest::prelude::*;

use super::*;
use crate::config::http::ProxyProtocol;

fn header(len: usize, pair: Option<(&str, &str)>) -> Parsed {
    let addresses = pair.map(|(source, destination)| Addresses {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    });
    Parsed::Header { len, addresses }
}

#[test]
fn lines() {
    let four = b"PROXY TCP4 192.0.2.1 203.0.113.1 56324 443\r\nGET / HTTP/1.1\r\n";
    assert_eq!(
        parse(four),
        header(44, Some(("192.0.2.1:56324", "203.0.113.1:443")))
    );
    let six = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n";
    let found = header(44, Some(("[2001:db8::1]:1", "[2001:db8::2]:65535")));
    assert_eq!(parse(six), found);
    assert_eq!(parse(b"PROXY UNKNOWN\r\n"), header(15, None));
    assert_eq!(
        parse(b"PROXY UNKNOWN ffff:: ffff:: 1 2\r\n"),
        header(33, None)
    );
    for bad in [
        "GET / HTTP/1.1\r\n",
        "PROXY\r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.1 56324\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.1 56324 443 \r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.1 56324 65536\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.1 056324 443\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.1 +5 443\r\n",
        "PROXY TCP4  192.0.2.1 203.0.113.1 5 443\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 203.0.113.1 1 2\r\n",
        "PROXY UDP4 192.0.2.1 203.0.113.1 1 2\r\n",
        "proxy TCP4 192.0.2.1 203.0.113.1 1 2\r\n",
        &format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)),
    ] {
        assert!(matches!(parse(bad.as_bytes()), Parsed::Bad(_)), "{bad}");
    }
    assert_eq!(
        parse(&[b'x'; 1]),
        Parsed::Bad("neither \"PROXY \" nor the signature of version 2")
    );
}

#[test]
fn binary() {
    let of = |fields: [u8; 4], body: &[u8]| parse(&[SIGNATURE, &fields[..], body].concat());
    let four = [192, 0, 2, 1, 203, 0, 113, 1, 0, 80, 1, 187];
    let found = Some(("192.0.2.1:80", "203.0.113.1:443"));
    assert_eq!(of([0x21, 0x11, 0, 12], &four), header(28, found));
    let more = [&four[..], &[4, 0, 1, 9]].concat();
    assert_eq!(of([0x21, 0x11, 0, 16], &more), header(32, found));
    assert_eq!(of([0x20, 0x00, 0, 0], &[]), header(16, None));
    assert_eq!(of([0x20, 0x11, 0, 12], &four), header(28, None));
    assert_eq!(of([0x21, 0x00, 0, 2], &[1, 2]), header(18, None));
    assert_eq!(of([0x21, 0x31, 0, 216], &[0; 216]), header(232, None));
    for (fields, body) in [
        ([0x11, 0x11, 0, 12], &four[..]),
        ([0x22, 0x11, 0, 12], &four),
        ([0x21, 0x41, 0, 12], &four),
        ([0x21, 0x11, 0, 11], &four),
        ([0x21, 0x21, 0, 12], &four),
        ([0x21, 0x11, 0x10, 1], &four),
    ] {
        assert!(matches!(of(fields, body), Parsed::Bad(_)), "{fields:x?}");
    }
}

#[test]
fn headers_for_nobody() {
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        let bytes = write_own(version);
        assert_eq!(parse(bytes), header(bytes.len(), None), "{version:?}");
    }
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<std::net::SocketAddrV4>().prop_map(Into::into),
        (any::<Ipv6Addr>(), any::<u16>()).prop_map(Into::into)
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        source in address(),
        destination in address(),
        v2: bool,
        name in prop::option::of("[a-z.]{1,30}"),
        alpn in prop::option::of(prop::collection::vec(any::<u8>(), 1..9)),
        certificate: bool,
    ) {
        let addresses = Addresses { source, destination };
        let version = if v2 { ProxyProtocol::V2 } else { ProxyProtocol::V1 };
        let tls = name.as_ref().map(|_| TlsInfo { version: "TLSv1.3".to_owned(), certificate });
        let details = Details { name, alpn, tls };
        let bytes = write(version, addresses, &details);
        for end in 0..bytes.len() {
            prop_assert_eq!(parse(&bytes[..end]), Parsed::More, "{}", end);
        }
        let Parsed::Header { len, addresses: Some(read) } = parse(&bytes) else {
            return Err(TestCaseError::fail("no header"));
        };
        prop_assert_eq!(len, bytes.len());
        let same = |a: SocketAddr, b: SocketAddr| {
            a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
        };
        prop_assert!(same(read.source, source) && same(read.destination, destination));
        // The other implementation takes it too, to its last byte.
        match ppp::HeaderResult::parse(&bytes) {
            ppp::HeaderResult::V1(header) => prop_assert_eq!(header.unwrap().header.len(), len),
            ppp::HeaderResult::V2(header) => {
                let header = header.unwrap();
                prop_assert_eq!(header.as_bytes().len(), len);
                prop_assert!(header.tlvs().all(|item| item.is_ok()));
            }
        }
    }

    #[test]
    fn any_bytes_are_read_as_the_other_does(
        start in prop::sample::select(vec![&b""[..], b"PROXY TCP4 ", b"PROXY UNKNOWN", SIGNATURE]),
        bytes in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let bytes = [start, &bytes[..]].concat();
        if let Parsed::Header { len, .. } = parse(&bytes) {
            prop_assert!(len <= bytes.len());
            // It does not know all families, nor any but text in a line.
            let other = ppp::HeaderResult::parse(&bytes);
            prop_assert!(!other.is_incomplete());
        }
    }
}
