//! What is wrong with the files of TLS, all of it at once, for those who ask before they serve.

use std::time::{SystemTime, UNIX_EPOCH};

use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Backend, BadFile, Server, pem};
use crate::config::{
    Certificate, Tls,
    http::{BackendTls, HttpVersion},
};

/// Of a service's.
pub fn of_service(tls: &Tls) -> Vec<BadFile> {
    let certificates = tls.certificates.iter().enumerate();
    let mut bad: Vec<BadFile> = certificates
        .filter_map(|(index, files)| certificate(&format!("certificates[{index}]"), files))
        .collect();
    let auth = tls.client_auth.iter();
    bad.extend(auth.filter_map(|auth| pem::authorities("client_auth.ca", &auth.ca).err()));
    if bad.is_empty() {
        bad.extend(Server::new(tls).err());
    }
    bad
}

/// Of a pool's.
pub fn of_pool(tls: &BackendTls, version: HttpVersion) -> Vec<BadFile> {
    let ca = tls.ca.iter();
    let mut bad: Vec<BadFile> = ca
        .filter_map(|file| pem::authorities("ca", file).err())
        .collect();
    let shown = tls.certificate.iter();
    bad.extend(shown.filter_map(|files| certificate("certificate", files)));
    if bad.is_empty() {
        bad.extend(Backend::new(tls, version).err());
    }
    bad
}

/// Of a certificate, its key, and those between it and its authority.
fn certificate(field: &str, files: &Certificate) -> Option<BadFile> {
    let certified = match pem::certified(field, files) {
        Ok(certified) => certified,
        Err(bad) => return Some(bad),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs() as i64);
    let why = certified.cert.iter().find_map(|der| {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Some("no X.509 certificate".to_owned());
        };
        let (subject, validity) = (certificate.subject(), certificate.validity());
        if now > validity.not_after.timestamp() {
            return Some(format!("{subject} has expired, on {}", validity.not_after));
        }
        (now < validity.not_before.timestamp())
            .then(|| format!("{subject} is not valid before {}", validity.not_before))
    })?;
    Some(pem::bad(&format!("{field}.chain"), &files.chain, why))
}
