//! Which compiler builds the XDP program. The agent's build script includes this file, so
//! that it and the developers' verbs never disagree: standard library and anyhow only.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

/// Names the rustup toolchain to use, instead of looking for one.
pub(crate) const OVERRIDE: &str = "WEIR_EBPF_TOOLCHAIN";

/// rustup toolchains that may have the standard library's sources, the best first. `bpf` is
/// the name under which `cargo xtask setup` links Debian's compiler.
const CANDIDATES: [&str; 2] = ["nightly", "bpf"];

/// A compiler that has the sources which `-Z build-std` needs.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// rustup's name for it.
    pub(crate) name: String,
    /// Major version of its LLVM.
    pub(crate) llvm: u32,
}

/// The toolchain that builds the XDP program: the first candidate that has its sources and
/// whose code the installed bpf-linker can read.
pub(crate) fn choose() -> Result<Toolchain> {
    let linker = linker_llvm();
    let mut obstacles = Vec::new();
    for name in candidates() {
        match probe(&name).and_then(|found| links(found, &linker)) {
            Ok(found) => return Ok(found),
            Err(obstacle) => obstacles.push(format!("{name}: {obstacle:#}")),
        }
    }
    bail!(
        "no toolchain can build the XDP program ({})",
        obstacles.join("; ")
    )
}

/// Names to try, in order of preference.
pub(crate) fn candidates() -> Vec<String> {
    match env::var(OVERRIDE) {
        Ok(name) => vec![name],
        Err(_) => CANDIDATES.map(String::from).to_vec(),
    }
}

/// The toolchain of that name, if it is installed and has its sources.
pub(crate) fn probe(name: &str) -> Result<Toolchain> {
    let version = rustc(name, "-vV")?;
    let sysroot = rustc(name, "--print=sysroot")?;
    let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    ensure!(sources.is_dir(), "has no rust-src");
    let (release, needed) = (release(&version)?, minor(env!("CARGO_PKG_RUST_VERSION"))?);
    ensure!(
        release >= needed,
        "is Rust 1.{release}, and Weir needs 1.{needed}"
    );
    Ok(Toolchain {
        name: name.to_owned(),
        llvm: major_after(&version, "LLVM version: ").context("its LLVM version is not known")?,
    })
}

/// The minor version in what `rustc -vV` prints: 96 of `release: 1.96.0`.
fn release(verbose: &str) -> Result<u32> {
    let (_, release) = verbose
        .split_once("release: ")
        .context("its version is not known")?;
    minor(release)
}

/// 96 of `1.96.0-nightly`.
fn minor(version: &str) -> Result<u32> {
    major_after(version, "1.").context("its version is not one of Rust 1")
}

/// Major version of the LLVM in the installed bpf-linker.
pub(crate) fn linker_llvm() -> Result<u32> {
    // Its own --version does not name the LLVM; LLVM's does, and ends before the input is read.
    let said = stdout(Command::new("bpf-linker").args([
        "--llvm-args=--version",
        "--output=/dev/null",
        "/dev/null",
    ]))?;
    major_after(&said, "LLVM version ").context("the LLVM version of bpf-linker is not known")
}

/// LLVM reads what older versions wrote, not what newer ones did.
fn links(found: Toolchain, linker: &Result<u32>) -> Result<Toolchain> {
    match linker {
        Ok(llvm) if *llvm >= found.llvm => Ok(found),
        Ok(llvm) => bail!("has LLVM {}, bpf-linker only {llvm}", found.llvm),
        Err(error) => bail!("{error:#}"),
    }
}

fn rustc(toolchain: &str, argument: &str) -> Result<String> {
    stdout(
        Command::new("rustup")
            .args(["run", toolchain, "rustc", argument])
            // Looking for a toolchain must not download it.
            .env("RUSTUP_AUTO_INSTALL", "0")
            .env("RUST_BACKTRACE", "0"),
    )
}

/// What a program that succeeds says.
pub(crate) fn stdout(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let output = command
        .output()
        .with_context(|| format!("{} cannot be run", program.display()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let line = stderr.lines().find(|line| !line.trim().is_empty());
        let line = line.unwrap_or("it fails and does not say why");
        bail!("{}", line.trim_start_matches("error: "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The number that follows `label`: 22 in `LLVM version: 22.1.8`.
fn major_after(text: &str, label: &str) -> Option<u32> {
    let (_, version) = text.split_once(label)?;
    let digits = version.find(|c: char| !c.is_ascii_digit());
    version[..digits.unwrap_or(version.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_llvm_of_rustc() {
        let verbose = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
                       binary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(major_after(verbose, "LLVM version: "), Some(22));
        assert_eq!(
            major_after("rustc 1.96.0\nrelease: 1.96.0\n", "LLVM version: "),
            None
        );
        assert_eq!(
            major_after("LLVM version: unknown\n", "LLVM version: "),
            None
        );
    }

    #[test]
    fn reads_the_release_of_rustc() {
        let verbose =
            "rustc 1.96.0 (ac68faa20 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(release(verbose).ok(), Some(96));
        assert_eq!(minor("1.97.0-nightly").ok(), Some(97));
        assert!(release("rustc 2.0").is_err());
    }

    #[test]
    fn reads_the_llvm_of_the_linker() {
        let debian = "Debian LLVM version 22.1.8\n  Optimized build.\n";
        assert_eq!(major_after(debian, "LLVM version "), Some(22));
        let upstream = "LLVM (http://llvm.org/):\n  LLVM version 9\n";
        assert_eq!(major_after(upstream, "LLVM version "), Some(9));
    }

    #[test]
    fn a_linker_reads_older_code_only() {
        let compiler = || Toolchain {
            name: "bpf".to_owned(),
            llvm: 22,
        };
        assert!(links(compiler(), &Ok(22)).is_ok());
        assert!(links(compiler(), &Ok(23)).is_ok());
        let error = links(compiler(), &Ok(21)).unwrap_err().to_string();
        assert!(error.contains("LLVM 22") && error.contains("21"), "{error}");
        assert!(links(compiler(), &Err(anyhow::anyhow!("not installed"))).is_err());
    }

    #[test]
    fn a_toolchain_that_is_not_there_says_so() {
        let error = probe("weir-has-no-such-toolchain").unwrap_err().to_string();
        assert!(error.contains("weir-has-no-such-toolchain"), "{error}");
    }
}
