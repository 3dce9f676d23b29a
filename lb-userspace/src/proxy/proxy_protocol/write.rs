//! From addresses to bytes.

use std::net::IpAddr;

use super::{Addresses, SIGNATURE};
use crate::config::http::ProxyProtocol;

/// What version 2 says of a client's TLS.
#[derive(Clone, Copy, Debug)]
pub struct TlsInfo<'a> {
    /// Version, such as `TLSv1.3`.
    pub version: &'a str,
    /// The name that the client asked for.
    pub name: Option<&'a str>,
    /// Whether it showed a certificate, which was verified.
    pub certificate: bool,
}

/// Types of what may follow the addresses.
mod kind {
    pub(super) const AUTHORITY: u8 = 0x02;
    pub(super) const SSL: u8 = 0x20;
    pub(super) const SSL_VERSION: u8 = 0x21;
}

/// The header that goes before the first byte to a backend. Version 1 says nothing of TLS.
pub fn write(version: ProxyProtocol, addresses: Addresses, tls: Option<TlsInfo<'_>>) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => version1(addresses).into_bytes(),
        ProxyProtocol::V2 => version2(addresses, tls),
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

fn version2(addresses: Addresses, tls: Option<TlsInfo<'_>>) -> Vec<u8> {
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
    if let Some(tls) = tls {
        if let Some(name) = tls.name {
            item(&mut body, kind::AUTHORITY, name.as_bytes());
        }
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
