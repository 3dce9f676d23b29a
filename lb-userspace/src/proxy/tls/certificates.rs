//! Which certificate a client is shown.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A service's certificates, by the names that they are for.
#[derive(Debug)]
pub(super) struct Certificates {
    /// By name, in lower case; several where they differ in the kind of key.
    exact: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// By what follows `*.`, which stands for one label (RFC 9525, 6.3).
    wildcards: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// For clients that name none of these.
    default: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Of several; the first is the default, if there is one.
    pub(super) fn new(all: &[Arc<CertifiedKey>], default: bool) -> Certificates {
        let mut certificates = Certificates {
            exact: HashMap::new(),
            wildcards: HashMap::new(),
            default: match default {
                true => all.first().cloned().into_iter().collect(),
                false => Vec::new(),
            },
        };
        for key in all {
            for name in names(key) {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut certificates.wildcards, parent),
                    None => (&mut certificates.exact, &*name),
                };
                map.entry(name.into()).or_default().push(key.clone());
            }
        }
        certificates
    }

    /// Those for a name, the best first.
    fn of(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name else {
            return &self.default;
        };
        let wildcard = || self.wildcards.get(name.split_once('.')?.1);
        self.exact
            .get(name)
            .or_else(wildcard)
            .unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let lower = hello.server_name().map(str::to_ascii_lowercase);
        let keys = self.of(lower.as_deref());
        let usable =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        keys.iter().find(usable).or(keys.first()).cloned()
    }
}

/// The DNS names that a certificate is for, in lower case.
pub(super) fn names(key: &CertifiedKey) -> Vec<String> {
    let Some(Ok((_, certificate))) = key.cert.first().map(|der| X509Certificate::from_der(der))
    else {
        return Vec::new();
    };
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    alternatives
        .value
        .general_names
        .iter()
        .filter_map(dns)
        .collect()
}
