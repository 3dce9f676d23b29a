//! HTTPS clients: connections to a VIP over TLS, which believe few certificates.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// TLS of a client that believes these certificates (PEM).
///
/// # Errors
///
/// One cannot be used.
pub fn believing(certificates: &[&Path]) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for file in certificates {
        roots.add(CertificateDer::from_pem_file(file)?)?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    Ok(config.with_no_client_auth())
}

/// What makes connections.
#[derive(Clone)]
pub struct Https {
    target: SocketAddr,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Https {
    /// For a server at `target` of this name and one of these certificates (PEM), whose protocols
    /// are `alpn`.
    ///
    /// # Errors
    ///
    /// A certificate or the name cannot be used.
    pub fn new(target: SocketAddr, name: &str, believe: &[&Path], alpn: &[&str]) -> Result<Self> {
        let mut config = believing(believe)?;
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self {
            target,
            name: ServerName::try_from(name.to_owned())?,
            config: Arc::new(config),
        })
    }

    /// A connection, from the namespace that the thread is in.
    ///
    /// # Errors
    ///
    /// TCP's and TLS's.
    pub async fn connect(&self) -> Result<TokioIo<TlsStream<TcpStream>>> {
        let tcp = TcpStream::connect(self.target).await.context("connect")?;
        tcp.set_nodelay(true)?;
        let connector = TlsConnector::from(self.config.clone());
        let stream = connector.connect(self.name.clone(), tcp).await;
        Ok(TokioIo::new(stream.context("TLS")?))
    }
}
