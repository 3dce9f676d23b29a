//! A compiler with the standard library's sources, and the linker that goes with it.

use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{apt, linker, step};
use crate::{
    command::{find, run},
    toolchain::{self, OVERRIDE, Toolchain},
};

/// Installs what [`toolchain::choose`] did not find.
pub(super) fn install() -> Result<Toolchain> {
    ensure!(
        find("rustup").is_some(),
        "rustup is not installed: it runs the compiler of the XDP program beside the default one"
    );
    let llvm = match with_sources() {
        Some(found) => found.llvm,
        None => new_compiler()?.llvm,
    };
    if !toolchain::linker_llvm().is_ok_and(|linked| linked >= llvm) {
        linker::install(llvm)?;
    }
    toolchain::choose().context("setup did what it could; is cargo's bin directory in PATH?")
}

/// By way of rustup if it has a nightly, else by way of Debian.
fn new_compiler() -> Result<Toolchain> {
    if let Ok(name) = env::var(OVERRIDE) {
        bail!(
            "`{name}`, from the environment's {OVERRIDE}, cannot be used: unset it, or repair that"
        );
    }
    if add_rust_src()
        && let Some(found) = with_sources()
    {
        return Ok(found);
    }
    debian().context("the other way is `rustup toolchain install nightly --component rust-src`")
}

/// A toolchain with its sources, for which a linker is there or can be built.
fn with_sources() -> Option<Toolchain> {
    let linked = toolchain::linker_llvm().ok();
    toolchain::candidates()
        .iter()
        .filter_map(|name| toolchain::probe(name).ok())
        .find(|found| Some(found.llvm) <= linked || linker::can_install(found.llvm))
}

/// Adds rust-src to a nightly that lacks it. False: there is no nightly, or it failed (there is
/// no network, or that nightly is no longer to be had).
fn add_rust_src() -> bool {
    let nightly = Command::new("rustup")
        .args(["run", "nightly", "rustc", "--version"])
        .env("RUSTUP_AUTO_INSTALL", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !nightly.is_ok_and(|status| status.success()) {
        return false;
    }
    step(
        "adding rust-src to rustup's nightly",
        "`core` is compiled for BPF from its sources",
    );
    let added = run(Command::new("timeout")
        .args(["60", "rustup", "component", "add", "rust-src"])
        .args(["--toolchain", "nightly"])
        .env("RUST_BACKTRACE", "0"));
    if let Err(error) = &added {
        eprintln!("setup: {error:#}; trying Debian's compiler");
    }
    added.is_ok()
}

/// Debian's compiler and its sources, as the rustup toolchain `bpf`.
fn debian() -> Result<Toolchain> {
    // One that is installed and brought us here is too old.
    apt::install_newest(
        &["rustc-web", "cargo-web", "rust-web-src"],
        "the XDP program needs a compiler that has the sources of `core`",
    )?;
    step(
        "linking /usr as rustup's toolchain `bpf`",
        "the build finds Debian's compiler by that name",
    );
    run(Command::new("rustup").args(["toolchain", "link", "bpf", "/usr"]))?;
    toolchain::probe("bpf").context("Debian's compiler cannot be used")
}
