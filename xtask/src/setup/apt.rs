//! Debian packages.

use std::process::Command;

use anyhow::{Result, ensure};

use super::step;
use crate::command::{find, run};

/// In a script of its own, so that Ctrl-C cannot leave the system with its services barred.
const SCRIPT: &str = include_str!("apt-install.sh");

/// Installs those of the packages that are missing, with one call of apt-get, and starts none
/// of their services.
pub(super) fn install(packages: &[&str], why: &str) -> Result<()> {
    let missing: Vec<_> = packages
        .iter()
        .copied()
        .filter(|name| !is_installed(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install_newest(&missing, why)
}

/// Installs the packages, or brings them up to date.
pub(super) fn install_newest(packages: &[&str], why: &str) -> Result<()> {
    let wanted = packages.join(" ");
    ensure!(
        find("apt-get").is_some(),
        "{why}: there is no apt-get here, so install by hand what Debian calls {wanted}"
    );
    ensure!(
        nix::unistd::geteuid().is_root(),
        "{why}: only root can install packages, so run `sudo apt-get install {wanted}` first"
    );
    step(&format!("installing {wanted}"), why);
    run(Command::new("sh")
        .args(["-c", SCRIPT, "apt-install"])
        .args(packages))
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

/// Whether apt knows a package of this name.
pub(super) fn has(package: &str) -> bool {
    Command::new("apt-cache")
        .args(["show", package])
        .output()
        .is_ok_and(|output| output.status.success())
}
