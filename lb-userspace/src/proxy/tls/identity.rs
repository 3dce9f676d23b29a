//! What a client's certificate says, for backends.

use std::fmt::Write;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::distinguished;
use crate::config::ClientHeaders;

/// A client's certificate as headers, made once a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientIdentity(Vec<(HeaderName, HeaderValue)>);

/// The headers' names, compiled.
#[derive(Debug)]
pub struct IdentityHeaders {
    names: Vec<(&'static str, HeaderName)>,
}

impl IdentityHeaders {
    /// Of `tls.client_auth.headers`.
    ///
    /// # Errors
    ///
    /// A name that the configuration's check would have refused.
    pub fn new(config: &ClientHeaders) -> anyhow::Result<IdentityHeaders> {
        let names = config
            .named()
            .map(|(field, name)| Ok((field, name.parse()?)));
        Ok(IdentityHeaders {
            names: names.collect::<anyhow::Result<_>>()?,
        })
    }

    /// What a verified certificate says. A client without one has an empty identity.
    pub fn of(&self, certificates: Option<&[CertificateDer<'_>]>) -> ClientIdentity {
        let Some(der) = certificates.and_then(<[_]>::first) else {
            return ClientIdentity::default();
        };
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return ClientIdentity::default();
        };
        let values = self.names.iter().filter_map(|(field, name)| {
            let text = match *field {
                "subject" => distinguished::name(certificate.subject()),
                "issuer" => distinguished::name(certificate.issuer()),
                "serial" => hex(certificate.raw_serial()),
                "fingerprint" => hex(ring::digest::digest(&ring::digest::SHA256, der).as_ref()),
                "names" => names(&certificate),
                // A binary item of structured fields, as RFC 9440 has it.
                "certificate" => format!(":{}:", BASE64_STANDARD.encode(der)),
                _ => return None,
            };
            let value = HeaderValue::try_from(printable(text)).ok()?;
            (!value.is_empty()).then(|| (name.clone(), value))
        });
        ClientIdentity(values.collect())
    }

    /// Takes away what a client says itself (with `_` for `-` too, as some backends cannot tell
    /// them apart), and says what its certificate does.
    pub fn apply(&self, headers: &mut HeaderMap, identity: &ClientIdentity) {
        let same = |a: &HeaderName, b: &HeaderName| {
            let dash = |b: u8| if b == b'_' { b'-' } else { b };
            let bytes = |name: &HeaderName| name.as_str().len();
            bytes(a) == bytes(b) && (a.as_str().bytes().map(dash)).eq(b.as_str().bytes().map(dash))
        };
        let said = |name: &&HeaderName| self.names.iter().any(|(_, ours)| same(name, ours));
        let gone: Vec<HeaderName> = headers.keys().filter(said).cloned().collect();
        for name in gone {
            headers.remove(name);
        }
        for (name, value) in &identity.0 {
            headers.insert(name, value.clone());
        }
    }
}

fn names(certificate: &X509Certificate<'_>) -> String {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else {
        return String::new();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
            // A comma would make two of it.
            Some(name.replace(',', "%2C"))
        }
        _ => None,
    };
    let names: Vec<String> = alternatives
        .value
        .general_names
        .iter()
        .filter_map(name)
        .collect();
    names.join(",")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Into a String: never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Without what headers cannot have: an authority may sign any letters.
fn printable(text: String) -> String {
    match text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        true => text,
        false => text
            .chars()
            .map(|c| {
                if c.is_ascii_graphic() || c == ' ' {
                    c
                } else {
                    '?'
                }
            })
            .collect(),
    }
}
