//! `cargo xtask profile`: what Weir executes under the load of the benchmark of its proxy, for
//! [`crate::release`] to build by.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Result, ensure};

use crate::{
    command::{self, run},
    release, setup,
};

/// Builds an agent that counts what it executes, puts it under load, and keeps the counts in pgo/.
pub(crate) fn verb() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "what is executed is counted in network namespaces, which needs root: \
         `sudo -E env \"PATH=$PATH\" cargo xtask profile`"
    );
    setup::for_running()?;
    let merger = setup::for_profiling()?;
    let target = release::target()?.join("counting");
    let counts = tempfile::tempdir()?;
    let mut build = command::cargo();
    build.args(release::AGENT).arg("--target-dir").arg(&target);
    release::with_flag(&mut build, "-Cprofile-generate");
    // Build scripts count, too, and nobody wants to know.
    let scripts = tempfile::tempdir()?;
    run(build.env("LLVM_PROFILE_FILE", scripts.path().join("%p.profraw")))?;
    let mut load = command::cargo();
    load.args(["run", "--release", "--package", "weir-bench", "--"])
        .args(["l7", "--quick", "--agent"])
        .arg(target.join("release/weir"));
    run(load.env("LLVM_PROFILE_FILE", counts.path().join("%p.profraw")))?;
    let profile = counts.path().join("merged");
    let raw = fs::read_dir(counts.path())?;
    let raw: Vec<PathBuf> = raw.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    // Sparse: of what was never executed nothing is said, as another load may.
    let mut merge = Command::new(merger);
    merge
        .args(["merge", "-sparse", "-o"])
        .arg(&profile)
        .args(raw);
    run(&mut merge)?;
    println!("profile: {}", release::pack(&profile)?.display());
    Ok(())
}
