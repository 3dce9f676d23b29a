//! `cargo xtask lint`.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::{
    command::{cargo, run, workspace},
    setup,
    toolchain::Toolchain,
};

/// Formatting of the whole workspace, clippy over the host's crates and the XDP program.
pub(crate) fn verb() -> Result<()> {
    let toolchain = setup::for_building()?;
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["clippy", "--all-targets", "--", "-D", "warnings"]))?;
    xdp_program(&toolchain)
}

/// Clippy for the BPF target needs a clippy of the compiler that has the sources: a nightly
/// of rustup's has one, Debian's compiler has none.
fn xdp_program(toolchain: &Toolchain) -> Result<()> {
    let clippy = || {
        let mut command = Command::new("rustup");
        command
            .args(["run", &toolchain.name, "cargo", "clippy"])
            .env("RUST_BACKTRACE", "0")
            .current_dir(workspace());
        command
    };
    let there = clippy()
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?
        .success();
    if !there {
        eprintln!(
            "lint: lb-ebpf is not linted: toolchain `{}` has no clippy",
            toolchain.name
        );
        return Ok(());
    }
    run(clippy()
        .args(["--package", "lb-ebpf", "--bins", "--all-features"])
        .args(["--target", "bpfel-unknown-none", "-Zbuild-std=core"])
        .args(["--", "-D", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1"))
}
