//! The programs that are tested.

use std::{env, path::PathBuf};

use lab::cargo;

/// `cargo xtask test` sets it to its own path, and cargo has built the agent with the tests then. To
/// ask it again would build half of it anew: what tests need alone has other features switched on.
const XTASK: &str = "WEIR_XTASK";

/// Where `weir` or `xtask` is, built from the sources as they are.
///
/// # Panics
///
/// Where it cannot be built.
pub fn executable(name: &str) -> PathBuf {
    match env::var_os(XTASK) {
        Some(xtask) if name == "xtask" => return xtask.into(),
        Some(_) => {}
        None => build(name),
    }
    // target/debug/deps/test -> target/debug/weir
    let test = env::current_exe().expect("the test has a path");
    let profile = test.ancestors().nth(2).expect("the test is in target");
    profile.join(name)
}

fn build(name: &str) {
    let status = cargo()
        .args(["build", "--quiet", "--bin", name])
        .status()
        .expect("cargo runs");
    assert!(status.success(), "{name} cannot be built");
}
