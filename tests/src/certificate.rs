//! Certificates for tests.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

/// A certificate that vouches for itself, for a name, as `FILE.pem` and `FILE.key` in a directory.
///
/// # Errors
///
/// What openssl says.
pub fn self_signed(directory: &Path, file: &str, name: &str) -> Result<(PathBuf, PathBuf)> {
    let chain = directory.join(format!("{file}.pem"));
    let key = directory.join(format!("{file}.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-nodes", "-days", "2", "-subj", &format!("/CN={name}")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", &format!("subjectAltName=DNS:{name}")])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&chain)
        .output()?;
    let said = String::from_utf8_lossy(&made.stderr);
    ensure!(made.status.success(), "{said}");
    Ok((chain, key))
}
