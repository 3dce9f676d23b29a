//! Handshakes between rustls and what is made here, with certificates made for the test.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::HeaderMap;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::{ClientConnection, HandshakeKind, ServerConnection, pki_types::ServerName};
use tempfile::TempDir;

use super::*;
use crate::config::{
    self, Alpn, Certificate, ClientAuth, ClientHeaders, Tls, UnknownNames,
    http::{BackendTls, HttpVersion},
};

/// An authority, and a directory for what it signs.
struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { directory, issuer }
    }

    fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Signs a certificate for these names, the first of which names its files.
    fn sign(&self, names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Example, Inc.");
        params
            .distinguished_name
            .push(DnType::CommonName, &*names[0]);
        let mail = SanType::Rfc822Name("me@example.org".try_into().unwrap());
        params.subject_alt_names.push(mail);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |end: &str| self.directory.path().join(format!("{}.{end}", names[0]));
        fs::write(path("pem"), certificate.pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        Certificate {
            chain: path("pem"),
            key: path("key"),
        }
    }
}

fn tls(certificates: Vec<Certificate>) -> Tls {
    Tls {
        certificates,
        ..Tls::default()
    }
}

fn server(tls: &Tls) -> Server {
    Server::new(tls).unwrap().unwrap()
}

/// Both ends of a finished handshake.
struct Shaken {
    client: ClientConnection,
    server: ServerConnection,
}

impl Shaken {
    /// The first name of the certificate that the client was shown.
    fn shown(&self) -> String {
        let der = &self.client.peer_certificates().unwrap()[0];
        let (_, certificate) =
            <x509_parser::prelude::X509Certificate<'_> as x509_parser::prelude::FromDer<_>>::from_der(der)
                .unwrap();
        distinguished::name(certificate.subject())
    }
}

fn shake(
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
    name: ServerName<'static>,
) -> Result<Shaken, rustls::Error> {
    let mut client = ClientConnection::new(client, name)?;
    let mut server = ServerConnection::new(server)?;
    for _ in 0..10 {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut &*bytes).unwrap();
        server.process_new_packets()?;
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut &*bytes).unwrap();
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Shaken { client, server })
}

/// A client that believes the authority.
fn client(authority: &Authority, more: BackendTls, version: HttpVersion) -> Backend {
    Backend::new(
        &BackendTls {
            ca: Some(authority.ca()),
            ..more
        },
        version,
    )
    .unwrap()
}

fn name(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap()
}

#[test]
fn names_choose_the_certificate() {
    let authority = Authority::new();
    let mut tls = tls(vec![
        authority.sign(&["default.org", "192.0.2.1"]),
        authority.sign(&["www.example.org"]),
        authority.sign(&["*.example.org"]),
    ]);
    let client = client(&authority, BackendTls::default(), HttpVersion::Auto).config();
    let first = server(&tls);
    let shown = |host: &str| shake(first.config(), client.clone(), name(host)).map(|s| s.shown());
    let subject = |name: &str| Ok(format!("CN={name},O=Example\\, Inc."));
    assert_eq!(shown("www.example.org"), subject("www.example.org"));
    assert_eq!(shown("WWW.Example.org"), subject("www.example.org"));
    assert_eq!(shown("mail.example.org"), subject("*.example.org"));
    assert_eq!(shown("192.0.2.1"), subject("default.org"));
    // The default, which the client does not take for that name.
    for other in ["a.b.example.org", "example.org", "other.org"] {
        assert!(
            shown(other)
                .unwrap_err()
                .to_string()
                .contains("not valid for name"),
            "{other}"
        );
    }
    tls.unknown_names = UnknownNames::Refuse;
    let strict = server(&tls);
    assert!(shake(strict.config(), client.clone(), name("www.example.org")).is_ok());
    let refused = shake(strict.config(), client, name("other.org"));
    assert!(
        refused
            .err()
            .unwrap()
            .to_string()
            .contains("no server certificate")
    );

    let expiries = first.expiries();
    assert_eq!(expiries.len(), 3);
    assert_eq!(expiries[1].names, ["www.example.org"]);
    assert_eq!(expiries[1].not_after, 1_893_456_000);
}

#[test]
fn protocols_and_versions() {
    let authority = Authority::new();
    let certificate = authority.sign(&["a.org"]);
    let alpn = |offered: Vec<Alpn>, version| {
        let tls = Tls {
            alpn: offered,
            ..tls(vec![certificate.clone()])
        };
        let client = client(&authority, BackendTls::default(), version).config();
        let shaken = shake(server(&tls).config(), client, name("a.org"))?;
        Ok::<_, rustls::Error>(shaken.server.alpn_protocol().map(<[u8]>::to_vec))
    };
    let both = vec![Alpn::H2, Alpn::Http11];
    assert_eq!(
        alpn(both.clone(), HttpVersion::Auto),
        Ok(Some(b"h2".to_vec()))
    );
    assert_eq!(
        alpn(both, HttpVersion::Http11),
        Ok(Some(b"http/1.1".to_vec()))
    );
    assert_eq!(
        alpn(vec![Alpn::Http11], HttpVersion::Auto),
        Ok(Some(b"http/1.1".to_vec()))
    );
    assert!(alpn(vec![Alpn::Http11], HttpVersion::Http2).is_err());

    let old = || {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.issuer.der().clone()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    };
    let lax = server(&tls(vec![certificate.clone()]));
    assert!(shake(lax.config(), old(), name("a.org")).is_ok());
    let strict = Tls {
        min_version: TlsVersion::V13,
        ..tls(vec![certificate])
    };
    assert!(shake(server(&strict).config(), old(), name("a.org")).is_err());
}

#[test]
fn sessions_are_taken_up_again() {
    let authority = Authority::new();
    let server = server(&tls(vec![authority.sign(&["a.org"])]));
    let client = client(&authority, BackendTls::default(), HttpVersion::Auto).config();
    let kind = || {
        let shaken = shake(server.config(), client.clone(), name("a.org")).unwrap();
        shaken.server.handshake_kind()
    };
    assert_eq!(kind(), Some(HandshakeKind::Full));
    assert_eq!(kind(), Some(HandshakeKind::Resumed));
    // Also with the certificate renewed meanwhile.
    authority.sign(&["a.org"]);
    assert_eq!(server.refresh(), Ok(true));
    assert_eq!(kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn changed_files_are_read_again() {
    let authority = Authority::new();
    let certificate = authority.sign(&["a.org"]);
    let server = server(&tls(vec![certificate.clone()]));
    let before = server.config();
    assert_eq!(server.refresh(), Ok(false));
    let good = fs::read(&certificate.key).unwrap();
    fs::write(&certificate.key, "nonsense").unwrap();
    let error = server.refresh().unwrap_err();
    assert_eq!(
        (&*error.field, &error.file),
        ("certificates[0].key", &certificate.key)
    );
    assert!(Arc::ptr_eq(&before, &server.config()), "the old ones stay");
    assert_eq!(server.refresh(), Ok(false), "one error a change");
    fs::write(&certificate.key, good).unwrap();
    assert_eq!(server.refresh(), Ok(true));
    assert!(!Arc::ptr_eq(&before, &server.config()));
}

#[test]
fn wrong_files_are_named() {
    let authority = Authority::new();
    let good = authority.sign(&["a.org"]);
    let other = authority.sign(&["b.org"]);
    let directory = authority.directory.path();
    let file = |name: &str, text: &str| {
        fs::write(directory.join(name), text).unwrap();
        directory.join(name)
    };
    let fails = |chain: &Path, key: &Path| {
        let files = Certificate {
            chain: chain.to_owned(),
            key: key.to_owned(),
        };
        let error = Server::new(&tls(vec![good.clone(), files])).err().unwrap();
        (error.field.clone(), error.why)
    };
    let missing = fails(&directory.join("none"), &good.key);
    assert_eq!(missing.0, "certificates[1].chain");
    assert!(missing.1.starts_with("cannot be read: "), "{}", missing.1);
    let empty = fails(&file("empty", ""), &good.key);
    assert_eq!(empty.1, "no certificate in PEM");
    let keyless = fails(&good.chain, &good.chain);
    assert_eq!(keyless.0, "certificates[1].key");
    assert!(
        keyless.1.starts_with("no private key in PEM: "),
        "{}",
        keyless.1
    );
    let mismatched = fails(&good.chain, &other.key);
    assert_eq!(mismatched.0, "certificates[1].key");
    assert!(
        mismatched
            .1
            .starts_with("not the key of the certificate in "),
        "{}",
        mismatched.1
    );
    let auth = ClientAuth {
        ca: file(
            "bad-ca",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ),
        required: true,
        headers: ClientHeaders::default(),
    };
    let tls = Tls {
        client_auth: Some(auth),
        ..tls(vec![good])
    };
    let error = Server::new(&tls).err().unwrap();
    assert_eq!(error.field, "client_auth.ca");
}

#[test]
fn clients_show_certificates() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let certificate = authority.sign(&["a.org"]);
    let auth = |required| Tls {
        client_auth: Some(ClientAuth {
            ca: authority.ca(),
            required,
            headers: ClientHeaders {
                names: Some("x-names".to_owned()),
                certificate: Some("client-cert".to_owned()),
                ..ClientHeaders::default()
            },
        }),
        ..tls(vec![certificate.clone()])
    };
    let required = server(&auth(true));
    let optional = server(&auth(false));
    let with = |shown: Option<Certificate>| {
        let tls = BackendTls {
            certificate: shown,
            ..BackendTls::default()
        };
        client(&authority, tls, HttpVersion::Auto).config()
    };
    let client_certificate = authority.sign(&["client.example.org"]);
    assert!(shake(required.config(), with(None), name("a.org")).is_err());
    assert!(
        shake(
            required.config(),
            with(Some(stranger.sign(&["x"]))),
            name("a.org")
        )
        .is_err()
    );
    assert!(shake(optional.config(), with(None), name("a.org")).is_ok());
    let shaken = shake(
        required.config(),
        with(Some(client_certificate.clone())),
        name("a.org"),
    )
    .unwrap();

    let headers = auth(true).client_auth.unwrap().headers;
    let headers = IdentityHeaders::new(&headers).unwrap();
    let identity = headers.of(shaken.server.peer_certificates());
    let mut map = HeaderMap::new();
    for (header, value) in [
        ("x-client-subject", "CN=root"),
        ("X_Client_Subject", "CN=root"),
    ] {
        map.append(
            http::HeaderName::try_from(header).unwrap(),
            value.parse().unwrap(),
        );
    }
    headers.apply(&mut map, &identity);
    assert_eq!(map.len(), 4);
    assert_eq!(
        map["x-client-subject"],
        "CN=client.example.org,O=Example\\, Inc."
    );
    assert_eq!(map["x-names"], "client.example.org,me@example.org");
    assert_eq!(map["x-client-fingerprint"].len(), 64);
    assert!(map["client-cert"].to_str().unwrap().starts_with(":MII"));
    // And a client without one is nobody, whatever it says.
    headers.apply(&mut map, &headers.of(None));
    assert!(map.is_empty());
}

#[test]
fn backends_are_verified() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let server = server(&tls(vec![stranger.sign(&["a.org"])]));
    let client = client(&authority, BackendTls::default(), HttpVersion::Auto);
    assert!(shake(server.config(), client.config(), name("a.org")).is_err());
    let address = std::net::IpAddr::from([192, 0, 2, 1]);
    assert_eq!(client.name(address), ServerName::IpAddress(address.into()));
    let named = BackendTls {
        server_name: Some("a.org".to_owned()),
        ..BackendTls::default()
    };
    let named = super::Backend::new(&named, HttpVersion::Auto).unwrap();
    assert_eq!(named.name(address), name("a.org"));
}

/// What a client sends first.
fn hello(host: &str) -> Vec<u8> {
    let authority = Authority::new();
    let config = client(&authority, BackendTls::default(), HttpVersion::Auto).config();
    let mut bytes = Vec::new();
    let mut client = ClientConnection::new(config, name(host)).unwrap();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn hellos_are_looked_at() {
    let bytes = hello("Db.Example.org");
    for end in 0..bytes.len() {
        assert_eq!(peek(&bytes[..end]), Peek::More, "{end}");
    }
    let found = Peek::Hello(Some("db.example.org".to_owned()));
    assert_eq!(peek(&bytes), found);
    assert_eq!(peek(&[&bytes[..], b"more"].concat()), found);
    assert_eq!(peek(&hello("192.0.2.1")), Peek::Hello(None));
    assert_eq!(peek(b"GET / HTTP/1.1\r\n"), Peek::NotTls);
    let mut forever = vec![0x16, 3, 1, 0x40, 0];
    forever.resize(LARGEST_HELLO, 0);
    assert_eq!(peek(&forever), Peek::NotTls);
}

proptest! {
    #[test]
    fn no_bytes_upset_it(at in any::<prop::sample::Index>(), byte: u8, end in any::<prop::sample::Index>()) {
        static HELLO: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| hello("a.org"));
        let mut bytes = HELLO.clone();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        peek(&bytes[..end.index(bytes.len())]);
        peek(&bytes);
    }

    #[test]
    fn nor_any_others(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        peek(&bytes);
        peek(&[&[0x16, 3, 1], &bytes[..]].concat());
    }
}

#[test]
fn names_choose_the_pool() {
    let names = [
        ("a.example.org", "a"),
        ("*.example.org", "wild"),
        ("*.b.example.org", "b"),
    ];
    let map = |names: &[(&str, &str)]| -> BTreeMap<String, String> {
        names
            .iter()
            .map(|(name, pool)| ((*name).to_owned(), (*pool).to_owned()))
            .collect()
    };
    let some = Passthrough::new(&map(&names));
    assert_eq!(some.pool(Some("a.example.org")), Some("a"));
    assert_eq!(some.pool(Some("x.y.example.org")), Some("wild"));
    assert_eq!(some.pool(Some("x.b.example.org")), Some("b"));
    assert_eq!(some.pool(Some("example.org")), None);
    assert_eq!(some.pool(None), None);
    let all = Passthrough::new(&map(&[&names[..], &[("*", "all")]].concat()));
    assert_eq!(all.pool(Some("example.org")), Some("all"));
    assert_eq!(all.pool(None), Some("all"));
    assert!(!all.is_empty() && Passthrough::new(&map(&[])).is_empty());
    let none = config::Tls {
        passthrough: map(&names),
        ..config::Tls::default()
    };
    assert!(Server::new(&none).unwrap().is_none());
}

#[test]
fn all_that_is_wrong_with_files_is_said() {
    let authority = Authority::new();
    let [a, b] = [&["a.test"], &["b.test"]].map(|names| authority.sign(names));
    let two = tls(vec![a.clone(), b.clone()]);
    assert_eq!(check::of_service(&two), []);

    let old = |not_before, not_after| {
        let mut params = CertificateParams::new(vec!["old.test".to_owned()]).unwrap();
        params.not_before = not_before;
        params.not_after = not_after;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        fs::write(&b.chain, certificate.pem()).unwrap();
        fs::write(&b.key, key.serialize_pem()).unwrap();
    };
    let day = rcgen::date_time_ymd;
    let missing = authority.directory.path().join("none.key");
    let both = tls(vec![
        Certificate {
            key: missing.clone(),
            ..a.clone()
        },
        b.clone(),
    ]);
    for (from, until, why) in [
        (day(2020, 1, 1), day(2021, 1, 1), "has expired, on Jan  1"),
        (day(2200, 1, 1), day(2201, 1, 1), "is not valid before"),
    ] {
        old(from, until);
        let bad = check::of_service(&both);
        let fields: Vec<&str> = bad.iter().map(|bad| &*bad.field).collect();
        assert_eq!(fields, ["certificates[0].key", "certificates[1].chain"]);
        assert_eq!(bad[0].file, missing);
        assert!(bad[0].why.starts_with("cannot be read: "), "{}", bad[0]);
        assert!(bad[1].why.contains(why), "{}", bad[1]);
    }
    let pool = BackendTls {
        ca: Some(missing),
        certificate: Some(Certificate { key: a.key, ..b }),
        ..BackendTls::default()
    };
    let bad = check::of_pool(&pool, HttpVersion::Auto);
    let fields: Vec<&str> = bad.iter().map(|bad| &*bad.field).collect();
    assert_eq!(fields, ["ca", "certificate.key"]);
    assert!(bad[1].why.starts_with("not the key of"), "{}", bad[1]);
}
