//! Certificates for tests.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

/// A certificate that vouches for itself, for a name, as `FILE.pem` and `FILE.key` in a directory,
/// valid for two days.
///
/// # Errors
///
/// What openssl says.
pub fn self_signed(directory: &Path, file: &str, name: &str) -> Result<(PathBuf, PathBuf)> {
    valid_for(directory, file, name, 2)
}

/// The same for so many days.
///
/// # Errors
///
/// As [`self_signed`].
pub fn valid_for(
    directory: &Path,
    file: &str,
    name: &str,
    days: u32,
) -> Result<(PathBuf, PathBuf)> {
    let chain = directory.join(format!("{file}.pem"));
    let key = directory.join(format!("{file}.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-nodes", "-days", &days.to_string()])
        .args(["-subj", &format!("/CN={name}")])
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
