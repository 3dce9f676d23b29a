//! Building Weir as it is shipped: optimised by what it was seen to execute (profile-guided
//! optimisation), where a profile for this compiler is in pgo/. `cargo xtask profile` makes one.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    command::{self, workspace},
    toolchain::stdout,
};

/// The agent alone, as it is shipped.
pub(crate) const AGENT: [&str; 6] = [
    "build",
    "--release",
    "--package",
    "lb-userspace",
    "--bin",
    "weir",
];

/// What separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\x1f";

/// cargo, to build for release.
pub(crate) fn cargo() -> Result<Command> {
    let mut cargo = command::cargo();
    let packed = profile()?;
    if packed.exists() {
        let profile = unpack(&packed)?;
        let profile = format!("-Cprofile-use={}", profile.display());
        // Functions that have changed since are compiled as without it, and not warned of each.
        with_flags(&mut cargo, &[&profile, "-Cllvm-args=-no-pgo-warn-mismatch"]);
    } else {
        eprintln!(
            "release: without {}, which `cargo xtask profile` makes, HTTP takes about an eighth \
             more CPU",
            packed.display()
        );
    }
    Ok(cargo)
}

/// Gives the compiler more flags than the environment does.
pub(crate) fn with_flags(cargo: &mut Command, more: &[&str]) {
    let encoded = env::var("CARGO_ENCODED_RUSTFLAGS");
    let plain = env::var("RUSTFLAGS").unwrap_or_default();
    let mut flags: Vec<&str> = match &encoded {
        Ok(encoded) => encoded.split(SEPARATOR).collect(),
        Err(_) => plain.split_whitespace().collect(),
    };
    flags.retain(|flag| !flag.is_empty());
    flags.extend(more);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR));
}

/// The profile for the compiler that cargo uses. Functions have other names with another, and its
/// LLVM may not read it.
pub(crate) fn profile() -> Result<PathBuf> {
    let version = rustc("--version")?;
    Ok(workspace().join("pgo").join(name(&version)))
}

/// What the compiler that cargo uses says.
pub(crate) fn rustc(argument: &str) -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    stdout(Command::new(rustc).arg(argument))
}

/// A profile's name, for what `rustc --version` says.
fn name(version: &str) -> String {
    let words = version.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'));
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    format!("{}.profdata.gz", words.join("-"))
}

/// Where cargo puts what it builds: this program is there, too.
pub(crate) fn target() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let target = own.ancestors().nth(2);
    Ok(target
        .context("this program is not where cargo puts it")?
        .to_owned())
}

/// The profile as the compiler reads it: in a file that is named for what is in it, as cargo builds
/// anew where the name is another.
fn unpack(packed: &Path) -> Result<PathBuf> {
    let bytes = fs::read(packed).with_context(|| packed.display().to_string())?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let directory = target()?.join("pgo");
    let profile = directory.join(format!("{:016x}.profdata", hasher.finish()));
    if !profile.exists() {
        fs::create_dir_all(&directory)?;
        let whole = tempfile::NamedTempFile::new_in(&directory)?;
        let mut gzip = Command::new("gzip");
        gzip.args(["--decompress", "--stdout"])
            .stdin(fs::File::open(packed)?);
        gzip.stdout(Stdio::from(whole.as_file().try_clone()?));
        command::run(&mut gzip)?;
        whole.persist(&profile)?;
    }
    Ok(profile)
}

/// Packs a profile into pgo/, in place of those that are there.
pub(crate) fn pack(profile: &Path) -> Result<PathBuf> {
    let packed = self::profile()?;
    let directory = packed.parent().context("it is in a directory")?;
    fs::create_dir_all(directory)?;
    let mut gzip = Command::new("gzip");
    let output = gzip
        .args(["--best", "--no-name", "--stdout"])
        .arg(profile)
        .output()?;
    ensure!(output.status.success(), "gzip failed: {}", output.status);
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "gz") {
            fs::remove_file(path)?;
        }
    }
    fs::write(&packed, output.stdout)?;
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_named_for_its_compiler() {
        let own = name("rustc 1.95.0 (59807616e 2026-04-14)\n");
        assert_eq!(own, "rustc-1.95.0-59807616e-2026-04-14.profdata.gz");
        assert_ne!(own, name("rustc 1.95.0 (59807616e 2026-04-14) (Debian)\n"));
    }

    #[test]
    fn a_profile_is_packed_and_read() {
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("plain");
        fs::write(&plain, "profile").unwrap();
        let packed = directory.path().join("packed.gz");
        let output = Command::new("gzip").arg("--stdout").arg(&plain).output();
        fs::write(&packed, output.unwrap().stdout).unwrap();
        let read = unpack(&packed).unwrap();
        assert_eq!(fs::read(&read).unwrap(), b"profile");
        assert_eq!(unpack(&packed).unwrap(), read);
        fs::remove_file(read).unwrap();
    }
}
