//! TLS to a pool's backends.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    pki_types::ServerName,
};

use super::{
    BadFile, pem, provider,
    reload::{Reload, Reloaded},
    versions,
};
use crate::config::http::{BackendTls as Config, HttpVersion};

/// TLS to a pool's backends: which certificates are believed, and what is shown.
pub struct Backend {
    reloaded: Reloaded<Arc<ClientConfig>>,
    name: Option<ServerName<'static>>,
}

impl Backend {
    /// Reads the files of a pool's TLS.
    ///
    /// # Errors
    ///
    /// A file that is wrong.
    pub fn new(tls: &Config, version: HttpVersion) -> Result<Backend, BadFile> {
        let name = tls.server_name.as_ref().map(|name| {
            ServerName::try_from(name.clone())
                .map_err(|error| pem::bad("server_name", name.as_ref(), error.to_string()))
        });
        let files = (tls.ca.iter())
            .chain(
                tls.certificate
                    .iter()
                    .flat_map(|files| [&files.chain, &files.key]),
            )
            .cloned()
            .collect();
        let name = name.transpose()?;
        let tls = tls.clone();
        let reloaded = Reloaded::new(files, move || make(&tls, version).map(Arc::new))?;
        Ok(Backend { reloaded, name })
    }

    /// What a new connection is to use.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.reloaded.current())
    }

    /// The name that a backend's certificate must have, and that it is asked for; its address,
    /// which is not said in SNI, where no name is configured.
    pub fn name(&self, address: IpAddr) -> ServerName<'static> {
        self.name
            .clone()
            .unwrap_or(ServerName::IpAddress(address.into()))
    }
}

impl Reload for Backend {
    fn refresh(&self) -> Result<bool, BadFile> {
        self.reloaded.refresh()
    }
}

fn make(tls: &Config, version: HttpVersion) -> Result<ClientConfig, BadFile> {
    const FIELD: &str = "ca";
    let (file, roots) = match &tls.ca {
        Some(file) => (file.clone(), pem::authorities(FIELD, file)?),
        None => (
            PathBuf::from("the system's certificates"),
            Arc::new(system()),
        ),
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|error| pem::bad(FIELD, &file, error.to_string()))?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(tls.min_version))
        .map_err(|error| pem::bad(FIELD, &file, error.to_string()))?
        .with_webpki_verifier(verifier);
    let mut config = match &tls.certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let shown = Arc::new(pem::certified("certificate", files)?);
            let resolver = rustls::sign::SingleCertAndKey::from(shown);
            builder.with_client_cert_resolver(Arc::new(resolver))
        }
    };
    config.resumption = Resumption::in_memory_sessions(1024);
    config.alpn_protocols = match version {
        HttpVersion::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        HttpVersion::Http11 => vec![b"http/1.1".to_vec()],
        HttpVersion::Http2 => vec![b"h2".to_vec()],
    };
    Ok(config)
}

/// What this host believes; what of it cannot be read is left out, as the others do.
fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
