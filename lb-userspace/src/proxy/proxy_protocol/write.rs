//! From addresses to bytes.

use std::net::IpAddr;

use super::{Addresses, SIGNATURE};
use crate::config::http::ProxyProtocol;

/// What version 2 says beside the addresses.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// The name that the client asked for.
    pub name: Option<String>,
    /// What it and Weir have agreed to speak, as ALPN has it.
    pub alpn: Option<Vec<u8>>,
    /// Its TLS with Weir.
    pub tls: Option<TlsInfo>,
}

/// What version 2 says of a client's TLS.
#[derive(Clone, Debug)]
pub struct TlsInfo {
    /// Version, such as `TLSv1.3`.
    pub version: String,
    /// Whether it showed a certificate, which was verified.
    pub certificate: bool,
}

/// Types of what may follow the addresses.
mod kind {
    pub(super) const ALPN: u8 = 0x01;
    pub(super) const AUTHORITY: u8 = 0x02;
    pub(super) const SSL: u8 = 0x20;
    pub(super) const SSL_VERSION: u8 = 0x21;
}

/// The header that goes before the first byte to a backend. Version 1 says the addresses only.
pub fn write(version: ProxyProtocol, addresses: Addresses, details: &Details) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => version1(addresses).into_bytes(),
        ProxyProtocol::V2 => version2(addresses, details),
    }
}

/// The header of a connection that is for no client, but for Weir's own health checks.
pub fn write_own(version: ProxyProtocol) -> &'static [u8] {
    match version {
        ProxyProtocol::V1 => b"PROXY UNKNOWN\r\n",
        // Version 2, LOCAL; of no family, and no bytes follow.
        ProxyProtocol::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}

fn version1(addresses: Addresses) -> String {
    let (source, destination) = addresses.of_one_family();
    let family = if source.is_ipv4() { 4 } else { 6 };
    let ports = (addresses.source.port(), addresses.destination.port());
    format!(
        "PROXY TCP{family} {source} {destination} {} {}\r\n",
        ports.0, ports.1
    )
}

fn version2(addresses: Addresses, details: &Details) -> Vec<u8> {
    let mut body = Vec::with_capacity(96);
    let family = match addresses.of_one_family() {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            body.extend([source.octets(), destination.octets()].concat());
            0x11
        }
        (source, destination) => {
            body.extend(
                [
                    super::wide(source).octets(),
                    super::wide(destination).octets(),
                ]
                .concat(),
            );
            0x21
        }
    };
    body.extend(addresses.source.port().to_be_bytes());
    body.extend(addresses.destination.port().to_be_bytes());
    if let Some(alpn) = &details.alpn {
        item(&mut body, kind::ALPN, alpn);
    }
    if let Some(name) = &details.name {
        item(&mut body, kind::AUTHORITY, name.as_bytes());
    }
    if let Some(tls) = &details.tls {
        // PP2_CLIENT_SSL, and PP2_CLIENT_CERT_CONN and _SESS; then 0: verified.
        let flags = if tls.certificate { 7 } else { 1 };
        let mut ssl = vec![flags, 0, 0, 0, u8::from(!tls.certificate)];
        item(&mut ssl, kind::SSL_VERSION, tls.version.as_bytes());
        item(&mut body, kind::SSL, &ssl);
    }
    let len = u16::try_from(body.len()).unwrap_or_default();
    let mut header = SIGNATURE.to_vec();
    // Version 2, PROXY; the family, over TCP.
    header.extend([0x21, family]);
    header.extend(len.to_be_bytes());
    header.extend(body);
    header
}

/// Adds a type, length and value; a value too long for one is left out.
fn item(to: &mut Vec<u8>, kind: u8, value: &[u8]) {
    if let Ok(len @ ..=1024) = u16::try_from(value.len()) {
        to.push(kind);
        to.extend(len.to_be_bytes());
        to.extend(value);
    }
}
