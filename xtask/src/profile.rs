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
    release::with_flags(&mut build, &["-Cprofile-generate"]);
    // Build scripts count, too, and nobody wants to know.
    let scripts = tempfile::tempdir()?;
    run(build.env("LLVM_PROFILE_FILE", scripts.path().join("%p.profraw")))?;
    let mut load = command::cargo();
    load.args(["run", "--release", "--package", "weir-bench", "--"])
        .args(["l7", "--quick", "--agent"])
        .arg(target.join("release/weir"));
    run(load.env("LLVM_PROFILE_FILE", counts.path().join("%p.profraw")))?;
    let raw = fs::read_dir(counts.path())?;
    let raw: Vec<PathBuf> = raw.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let all = counts.path().join("all");
    let mut merge = Command::new(&merger);
    run(merge.args(["merge", "-text", "-o"]).arg(&all).args(raw))?;
    fs::write(&all, of_the_load(&fs::read_to_string(&all)?))?;
    let profile = counts.path().join("profile");
    let mut merge = Command::new(&merger);
    run(merge.args(["merge", "-o"]).arg(&profile).arg(&all))?;
    println!("profile: {}", release::pack(&profile)?.display());
    Ok(())
}

/// Executions of a part of a function without which it is none that the load is about: a fiftieth of
/// the requests or less.
const LEAST: u64 = 10_000;

/// Of a profile as text, the functions that the load is about. What is seldom executed under it may be
/// all that counts in another (changes of large configurations, say), and is compiled as without a
/// profile.
fn of_the_load(profile: &str) -> String {
    let is_wanted = |function: &&str| {
        let (_, counts) = function
            .split_once("# Counter Values:\n")
            .unwrap_or_default();
        let mut counts = counts.lines().map_while(|count| count.parse::<u64>().ok());
        counts.any(|count| count >= LEAST)
    };
    // What is said of the whole stands before the first.
    let head = profile.split_inclusive('\n');
    let head = head.take_while(|line| line.starts_with(['#', ':']));
    let (head, functions) = profile.split_at(head.map(str::len).sum());
    let functions = functions.split_inclusive("\n\n").filter(is_wanted);
    [head].into_iter().chain(functions).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seldom_executed_is_left_out() {
        let function = |name: &str, counts: &str| {
            format!("{name}\n# Func Hash:\n7\n# Num Counters:\n2\n# Counter Values:\n{counts}\n\n")
        };
        let head = "# IR level Instrumentation Flag\n:ir\n";
        let seldom = function("seldom", "3\n9999\n# Num Value Kinds:\n99999");
        let [often, also] = ["often", "also"].map(|name| function(name, "0\n10000"));
        let wanted = of_the_load(&format!("{head}{seldom}{often}{seldom}{also}"));
        assert_eq!(wanted, format!("{head}{often}{also}"));
    }
}
