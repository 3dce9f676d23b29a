//! `cargo xtask setup`: finds or installs what Weir needs. Every step says what it does and
//! why; where all is there, nothing is done.

mod apt;
mod compiler;
mod linker;
mod profiler;
mod tools;

use std::path::PathBuf;

use anyhow::Result;

use crate::toolchain::{self, Toolchain};

/// Everything that any verb needs.
pub(crate) fn verb() -> Result<()> {
    let toolchain = for_testing()?;
    println!(
        "setup: all is there: toolchain `{}` and bpf-linker with LLVM {} build the XDP program",
        toolchain.name,
        toolchain::linker_llvm()?
    );
    Ok(())
}

/// What building needs; says nothing if it is there.
pub(crate) fn for_building() -> Result<Toolchain> {
    tools::install_builders()?;
    match toolchain::choose() {
        Ok(found) => Ok(found),
        Err(obstacles) => {
            eprintln!("setup: {obstacles:#}");
            compiler::install()
        }
    }
}

/// What the lab needs; says nothing if it is there.
pub(crate) fn for_lab() -> Result<()> {
    tools::install()
}

/// What Weir is compared with; says nothing if it is there.
pub(crate) fn for_comparing() -> Result<()> {
    tools::install_others()
}

/// What building and running with real traffic need; says nothing if it is there.
pub(crate) fn for_running() -> Result<Toolchain> {
    for_lab()?;
    for_building()
}

/// What reads what an agent has counted, and where it is.
pub(crate) fn for_profiling() -> Result<PathBuf> {
    profiler::install()
}

/// What the tests need; says nothing if it is there.
pub(crate) fn for_testing() -> Result<Toolchain> {
    tools::install_testers()?;
    for_running()
}

/// One step, before it is taken.
fn step(what: &str, why: &str) {
    eprintln!("setup: {what}: {why}");
}
