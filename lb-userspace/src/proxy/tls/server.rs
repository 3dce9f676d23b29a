//! TLS of a service.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring::Ticketer,
    server::{
        NoServerSessionStorage, ProducesTickets, ServerSessionMemoryCache, StoresServerSessions,
        WebPkiClientVerifier,
    },
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    BadFile, certificates,
    certificates::Certificates,
    expiry::Expiry,
    pem, provider,
    reload::{Reload, Reloaded},
    versions,
};
use crate::config::{Tls, TlsVersion, UnknownNames};

/// Sessions of TLS 1.2 clients that know no tickets.
const SESSIONS: usize = 4096;

/// What one set of files gives.
struct Made {
    config: Arc<ServerConfig>,
    expiries: Vec<Expiry>,
}

/// TLS of a service: what its clients are shown and asked.
pub struct Server(Reloaded<Made>);

/// How sessions are taken up again, whatever the certificates.
#[derive(Clone)]
struct Sessions {
    /// Encrypted with keys that change every six hours.
    tickets: Arc<dyn ProducesTickets>,
    cache: Arc<dyn StoresServerSessions>,
}

impl Sessions {
    fn new() -> Result<Sessions, rustls::Error> {
        Ok(Sessions {
            tickets: Ticketer::new()?,
            cache: ServerSessionMemoryCache::new(SESSIONS),
        })
    }
}

impl Server {
    /// Reads a service's certificates. `None`: it has none, as all its names are passed through.
    ///
    /// # Errors
    ///
    /// A file that is wrong.
    pub fn new(tls: &Tls) -> Result<Option<Server>, BadFile> {
        if tls.certificates.is_empty() {
            return Ok(None);
        }
        let tls = tls.clone();
        let mut files: Vec<PathBuf> = Vec::new();
        for certificate in &tls.certificates {
            files.extend([certificate.chain.clone(), certificate.key.clone()]);
        }
        files.extend(tls.client_auth.iter().map(|auth| auth.ca.clone()));
        let sessions = Sessions::new().map_err(|error| no_sessions(&tls, &error))?;
        Reloaded::new(files, move || make(&tls, &sessions)).map(|made| Some(Server(made)))
    }

    /// What a new connection is to use; connections keep theirs.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.current().config.clone()
    }

    /// When the certificates end, in the configuration's order.
    pub fn expiries(&self) -> Vec<Expiry> {
        self.0.current().expiries.clone()
    }
}

impl Reload for Server {
    fn refresh(&self) -> Result<bool, BadFile> {
        self.0.refresh()
    }
}

fn make(tls: &Tls, sessions: &Sessions) -> Result<Made, BadFile> {
    let mut keys = Vec::new();
    let mut expiries = Vec::new();
    for (index, files) in tls.certificates.iter().enumerate() {
        let field = format!("certificates[{index}]");
        let key = pem::certified(&field, files)?;
        let certificate = key.cert.first().map(|der| X509Certificate::from_der(der));
        let Some(Ok((_, certificate))) = certificate else {
            let why = "no X.509 certificate".to_owned();
            return Err(pem::bad(&format!("{field}.chain"), &files.chain, why));
        };
        expiries.push(Expiry {
            file: files.chain.clone(),
            names: certificates::names(&key),
            not_after: certificate.validity().not_after.timestamp(),
        });
        keys.push(Arc::new(key));
    }
    let shown = Certificates::new(&keys, tls.unknown_names == UnknownNames::Default);

    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(tls.min_version))
        .map_err(|error| no_sessions(tls, &error))?;
    let (builder, sessions) = match &tls.client_auth {
        None => (builder.with_no_client_auth(), sessions.clone()),
        Some(auth) => {
            const FIELD: &str = "client_auth.ca";
            let roots = pem::authorities(FIELD, &auth.ca)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = match auth.required {
                true => verifier,
                false => verifier.allow_unauthenticated(),
            };
            let verifier =
                (verifier.build()).map_err(|error| pem::bad(FIELD, &auth.ca, error.to_string()))?;
            // New ones for new authorities: a session taken up is not verified again.
            let sessions = Sessions::new().map_err(|error| no_sessions(tls, &error))?;
            (builder.with_client_cert_verifier(verifier), sessions)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = tls.alpn.iter().map(|alpn| alpn.name().to_vec()).collect();
    config.ticketer = sessions.tickets;
    config.session_storage = match tls.min_version {
        TlsVersion::V12 => sessions.cache,
        TlsVersion::V13 => Arc::new(NoServerSessionStorage {}),
    };
    Ok(Made {
        config: Arc::new(config),
        expiries,
    })
}

/// Of the first certificate, as no file is to blame.
fn no_sessions(tls: &Tls, error: &rustls::Error) -> BadFile {
    let file = tls
        .certificates
        .first()
        .map(|certificate| certificate.chain.clone());
    pem::bad("certificates", &file.unwrap_or_default(), error.to_string())
}
