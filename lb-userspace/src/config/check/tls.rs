//! Rules of TLS, with clients and with backends.

use std::path::Path;

use super::{Config, Problems, http, service::check_pool};
use crate::config::{Certificate, Service, Tls, http::BackendTls, problem::join};

pub(super) fn check(
    problems: &mut Problems,
    config: &Config,
    path: &str,
    service: &Service,
    tls: &Tls,
) {
    if tls.certificates.is_empty() && tls.passthrough.is_empty() {
        let expected = "at least one certificate, or names in passthrough";
        problems.add(join(path, "certificates"), "[]", expected);
    }
    for (index, certificate) in tls.certificates.iter().enumerate() {
        let path = format!("{path}.certificates[{index}]");
        self::certificate(problems, &path, certificate);
    }
    if tls.alpn.is_empty() {
        problems.add(join(path, "alpn"), "[]", "at least one of h2, http/1.1");
    }
    if let Some(auth) = &tls.client_auth {
        let path = join(path, "client_auth");
        file(problems, join(&path, "ca"), &auth.ca);
        for (field, name) in auth.headers.named() {
            http::own_name(problems, format!("{path}.headers.{field}"), name);
        }
    }
    let path = join(path, "passthrough");
    for (name, pool) in &tls.passthrough {
        let field = join(&path, name);
        if name != "*" {
            http::host(problems, field.clone(), name, true);
        }
        check_pool(problems, config, &field, service, pool);
    }
}

/// Of a pool.
pub(super) fn backend(problems: &mut Problems, path: &str, tls: &BackendTls) {
    if let Some(ca) = &tls.ca {
        file(problems, join(path, "ca"), ca);
    }
    if let Some(name) = &tls.server_name {
        http::host(problems, join(path, "server_name"), name, false);
    }
    if let Some(certificate) = &tls.certificate {
        self::certificate(problems, &join(path, "certificate"), certificate);
    }
}

fn certificate(problems: &mut Problems, path: &str, certificate: &Certificate) {
    file(problems, join(path, "chain"), &certificate.chain);
    file(problems, join(path, "key"), &certificate.key);
}

fn file(problems: &mut Problems, field: String, file: &Path) {
    if !file.is_absolute() {
        problems.add(field, file.display(), "the absolute path of a PEM file");
    }
}
