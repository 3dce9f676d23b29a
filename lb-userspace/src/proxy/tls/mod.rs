//! TLS with clients and with backends, on rustls with ring.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    SupportedProtocolVersion,
    crypto::CryptoProvider,
    version::{TLS12, TLS13},
};
use thiserror::Error;

use crate::config::TlsVersion;

mod backend;
mod certificates;
pub mod check;
mod client_hello;
mod distinguished;
mod expiry;
mod identity;
mod passthrough;
mod pem;
mod reload;
mod server;
#[cfg(test)]
mod tests;

pub use backend::Backend;
pub use client_hello::{LARGEST_HELLO, Peek, peek};
pub use expiry::Expiry;
pub use identity::{ClientIdentity, IdentityHeaders};
pub use passthrough::Passthrough;
pub use reload::{Reload, Reloaded};
pub use server::Server;

/// What is wrong with a file of certificates or keys.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: {why}", file.display())]
pub struct BadFile {
    /// The field that names it, such as `certificates[0].key`.
    pub field: String,
    /// The file.
    pub file: PathBuf,
    /// What is wrong; reads on after the file's name.
    pub why: String,
}

/// The one implementation of cryptography; no default of the process is needed.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The versions of TLS from the oldest that is spoken.
fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match min {
        TlsVersion::V12 => &BOTH,
        TlsVersion::V13 => &BOTH[..1],
    }
}
