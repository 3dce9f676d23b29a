//! TLS between clients and a service.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::unique;

/// How a service speaks TLS: which certificates it shows, and what it asks of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Certificates; each serves the names that it is for. The first is the default.
    pub certificates: Vec<Certificate>,
    /// Clients that name a host that no certificate is for, or none.
    pub unknown_names: UnknownNames,
    /// Oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Protocols offered by ALPN, the preferred first.
    pub alpn: Vec<Alpn>,
    /// Certificates of clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// Names (SNI: `db.example.org`, `*.example.org`, or `*` for all) whose connections go to a
    /// pool as they are, TLS and all.
    #[serde(
        deserialize_with = "unique::map",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub passthrough: BTreeMap<String, String>,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls {
            certificates: Vec::new(),
            unknown_names: UnknownNames::default(),
            min_version: TlsVersion::default(),
            alpn: vec![Alpn::H2, Alpn::Http11],
            client_auth: None,
            passthrough: BTreeMap::new(),
        }
    }
}

/// A certificate and its key, in PEM files that are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The certificate, followed by those that lead to its root.
    pub chain: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// What a client gets that names an unknown host, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownNames {
    /// The first certificate.
    #[default]
    Default,
    /// The alert `unrecognized_name` (RFC 6066).
    Refuse,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V13,
}

/// A protocol's name in ALPN (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Alpn {
    /// HTTP/2.
    #[serde(rename = "h2")]
    H2,
    /// HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http11,
}

impl Alpn {
    /// The name on the wire.
    pub fn name(self) -> &'static [u8] {
        match self {
            Alpn::H2 => b"h2",
            Alpn::Http11 => b"http/1.1",
        }
    }
}

/// What is asked of clients' certificates (mTLS).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientAuth {
    /// PEM file of the authorities that are believed; read again when it changes.
    pub ca: PathBuf,
    /// Whether clients without a certificate are refused.
    #[serde(default = "yes")]
    pub required: bool,
    /// Headers that tell backends what the certificate says. Whatever clients send by these
    /// names is removed.
    #[serde(default)]
    pub headers: ClientHeaders,
}

fn yes() -> bool {
    true
}

/// Names of headers that tell backends of a client's certificate; those not named are not sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientHeaders {
    /// The subject, as in RFC 4514.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// SHA-256 of the certificate, in lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The issuer, as in RFC 4514.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The serial number, in lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// DNS names, mail addresses and URIs of the subject, comma-separated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<String>,
    /// The certificate itself, as RFC 9440 has it in `Client-Cert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

impl Default for ClientHeaders {
    fn default() -> ClientHeaders {
        ClientHeaders {
            subject: Some("x-client-subject".to_owned()),
            fingerprint: Some("x-client-fingerprint".to_owned()),
            issuer: None,
            serial: None,
            names: None,
            certificate: None,
        }
    }
}

impl ClientHeaders {
    /// The fields' names and what they are set to.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("subject", &self.subject),
            ("fingerprint", &self.fingerprint),
            ("issuer", &self.issuer),
            ("serial", &self.serial),
            ("names", &self.names),
            ("certificate", &self.certificate),
        ]
        .into_iter()
        .filter_map(|(field, name)| Some((field, name.as_deref()?)))
    }
}
