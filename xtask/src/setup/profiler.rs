//! What merges the counts of a program that counts what it executes.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use glob::glob;

use super::step;
use crate::{command::run, release};

/// Finds it in the compiler's own directory, or has rustup put it there.
pub(super) fn install() -> Result<PathBuf> {
    if let Some(found) = find()? {
        return Ok(found);
    }
    step(
        "adding llvm-tools to rustup's toolchain",
        "llvm-profdata merges what was counted",
    );
    run(Command::new("rustup").args(["component", "add", "llvm-tools"]))?;
    find()?.context("llvm-tools has no llvm-profdata")
}

fn find() -> Result<Option<PathBuf>> {
    let sysroot = release::rustc("--print=sysroot")?;
    let pattern = format!("{}/lib/rustlib/*/bin/llvm-profdata", sysroot.trim());
    Ok(glob(&pattern)?.find_map(Result::ok))
}
