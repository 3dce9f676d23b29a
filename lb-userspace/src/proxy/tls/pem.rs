//! Certificates and keys from PEM files.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    InconsistentKeys, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::{BadFile, provider};
use crate::config::Certificate;

/// Bytes of a file at most: what is larger is something else.
const LARGEST: u64 = 16 << 20;

/// A certificate with its chain and key. `field` is the configuration's, such as
/// `certificates[0]`.
pub(super) fn certified(field: &str, files: &Certificate) -> Result<CertifiedKey, BadFile> {
    let chain_field = format!("{field}.chain");
    let key_field = format!("{field}.key");
    let chain = certificates(&chain_field, &files.chain)?;
    let bad_key = |why: String| bad(&key_field, &files.key, why);
    let key = PrivateKeyDer::from_pem_slice(&read(&key_field, &files.key)?)
        .map_err(|error| bad_key(format!("no private key in PEM: {error}")))?;
    let key = (provider().key_provider.load_private_key(key))
        .map_err(|error| bad_key(format!("not a key that can be used: {error}")))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let why = format!(
                "not the key of the certificate in {}",
                files.chain.display()
            );
            Err(bad_key(why))
        }
        Err(error) => Err(bad(&chain_field, &files.chain, error.to_string())),
    }
}

/// The authorities of a file.
pub(super) fn authorities(field: &str, file: &Path) -> Result<Arc<RootCertStore>, BadFile> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(field, file)? {
        roots
            .add(certificate)
            .map_err(|error| bad(field, file, format!("not an authority: {error}")))?;
    }
    Ok(Arc::new(roots))
}

/// All certificates of a file, at least one.
fn certificates(field: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, BadFile> {
    let text = read(field, file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if all.is_empty() => Err(bad(field, file, "no certificate in PEM".to_owned())),
        Ok(all) => Ok(all),
        Err(error) => Err(bad(field, file, format!("not in PEM: {error}"))),
    }
}

fn read(field: &str, file: &Path) -> Result<Vec<u8>, BadFile> {
    let size = fs::metadata(file).map(|metadata| metadata.len());
    match size.and_then(|size| match size > LARGEST {
        true => Err(std::io::Error::other("larger than 16 MiB")),
        false => fs::read(file),
    }) {
        Ok(text) => Ok(text),
        Err(error) => Err(bad(field, file, format!("cannot be read: {error}"))),
    }
}

pub(super) fn bad(field: &str, file: &Path, why: String) -> BadFile {
    BadFile {
        field: field.to_owned(),
        file: file.to_owned(),
        why,
    }
}
