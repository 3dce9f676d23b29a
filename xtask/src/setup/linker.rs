//! bpf-linker, built for the LLVM of the compiler.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{apt, step};
use crate::command::{cargo, find, run};

/// The release that is known to work with the pinned aya.
const VERSION: &str = "=0.13";

/// Where Debian's packages, its own and LLVM's, put LLVM's libraries and headers.
fn prefix(llvm: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{llvm}"))
}

/// What bpf-linker is built with.
fn packages(llvm: u32) -> [String; 4] {
    [
        format!("llvm-{llvm}-dev"),
        format!("libpolly-{llvm}-dev"),
        "libzstd-dev".to_owned(),
        "zlib1g-dev".to_owned(),
    ]
}

/// Whether a linker for this LLVM can be built here. Without apt only [`install`] can tell,
/// and says what is missing.
pub(super) fn can_install(llvm: u32) -> bool {
    find("apt-cache").is_none() || apt::has(&packages(llvm)[0])
}

/// Builds and installs bpf-linker for LLVM `llvm`.
pub(super) fn install(llvm: u32) -> Result<()> {
    let packages = packages(llvm);
    apt::install(
        &packages.each_ref().map(String::as_str),
        "bpf-linker is built with the LLVM of the compiler",
    )?;
    step(
        &format!("building bpf-linker for LLVM {llvm} (about a minute)"),
        "it turns the compiler's output into a BPF object",
    );
    let prefix = prefix(llvm);
    run(cargo()
        .args(["install", "bpf-linker", "--force", "--locked"])
        .args(["--version", VERSION, "--no-default-features"])
        .args(["--features", &format!("llvm-{llvm}")])
        .env("LLVM_PREFIX", &prefix)
        .env(format!("LLVM_SYS_{llvm}1_PREFIX"), &prefix)
        .env("RUSTFLAGS", format!("-L {}/lib", prefix.display())))
    .with_context(|| {
        format!("bpf-linker {VERSION} could not be built for LLVM {llvm}: install one by hand")
    })
}
