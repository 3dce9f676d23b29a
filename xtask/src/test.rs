//! `cargo xtask test`.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    command::{cargo, find, run, shown},
    setup,
};

/// Tells tests where this program is, and that cargo has built the agent beside them.
const XTASK: &str = "WEIR_XTASK";

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the tests whose name contains this.
    filter: Option<String>,
}

/// All tests; nothing is left of them, also where they are interrupted. That no test matches is a
/// failure.
pub(crate) fn verb(args: &Args) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the tests load BPF programs and make network namespaces, which needs root: \
         `sudo -E env \"PATH=$PATH\" cargo xtask test`; \
         without root, `cargo test -p lb-common -p lb-userspace` runs those that need no kernel"
    );
    setup::for_testing()?;
    // Ctrl-C ends the tests, not this: they die of it, and what they had made is still there.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let _runtime = runtime.enter();
    let _caught = signal(SignalKind::interrupt())?;
    let tested = test(args);
    lab::remove_leftovers()?;
    tested
}

fn test(args: &Args) -> Result<()> {
    let mut cargo = cargo();
    cargo.env(XTASK, env::current_exe()?);
    if find("cargo-nextest").is_some() {
        // .config/nextest.toml says which run beside each other.
        return run(cargo
            .args(["nextest", "run", "--no-tests=fail"])
            .args(&args.filter));
    }
    let ran = counted(
        cargo
            .args(["test", "--lib", "--bins", "--tests"])
            .args(&args.filter)
            .args(["--", "--test-threads=1"]),
    )?;
    let filter = args.filter.as_deref().unwrap_or_default();
    ensure!(ran > 0, "no test has `{filter}` in its name");
    Ok(())
}

/// Runs `cargo test` and says how many tests ran.
fn counted(command: &mut Command) -> Result<u64> {
    let shown = shown(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{shown}`"))?;
    let mut ran = 0;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            ran += passed(&line).unwrap_or(0);
            println!("{line}");
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "`{shown}` failed: {status}");
    Ok(ran)
}

/// How many tests passed, from libtest's last line of a binary.
fn passed(line: &str) -> Option<u64> {
    let counts = line.strip_prefix("test result: ok. ")?;
    counts.split_once(" passed")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::passed;

    #[test]
    fn counts_what_libtest_reports() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out";
        assert_eq!(passed(line), Some(12));
        assert_eq!(passed("test maglev::fair ... ok"), None);
        assert_eq!(passed("running 12 tests"), None);
    }
}
