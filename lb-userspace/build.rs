//! Builds the XDP program, with another compiler for another target, into `OUT_DIR`.

// One rule, for this script and for the developers' verbs, says which compiler.
#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::{
    env, fs,
    io::ErrorKind,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use aya_build::{Package, Toolchain, build_ebpf};

/// The binaries of lb-ebpf that the library embeds. What the agent does not use, the linker
/// leaves out of it.
const OBJECTS: [&str; 3] = ["weir-xdp", "weir-bench", "weir-frames"];

/// Set to 1 or true, for editors and linters: the agent compiles, with empty objects.
const SKIP: &str = "AYA_BUILD_SKIP";

fn main() -> Result<()> {
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    println!("cargo:rerun-if-env-changed={}", toolchain::OVERRIDE);
    println!("cargo:rerun-if-changed=../lb-common/src");
    println!("cargo:rerun-if-changed=../xtask/src/toolchain.rs");

    if env::var(SKIP).is_ok_and(|skip| skip == "1" || skip.eq_ignore_ascii_case("true")) {
        println!("cargo:rerun-if-env-changed={SKIP}");
        return empty_objects(&out_dir);
    }
    if let Ok(linker) = which::which("bpf-linker") {
        println!("cargo:rerun-if-changed={}", linker.display());
    }
    share_build_directory(&out_dir)?;
    build(&variable("PROFILE")?)?;
    for object in OBJECTS {
        ensure!(
            out_dir.join(object).is_file(),
            "lb-ebpf has no binary {object}"
        );
    }
    Ok(())
}

fn build(profile: &str) -> Result<()> {
    let toolchain = toolchain::choose().context("`cargo xtask setup` installs what is missing")?;
    // Gives compilers that are not nightlies the `-Z build-std` that aya-build passes then.
    // SAFETY: no other thread is running yet that could read the environment.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    // The program's own log costs every packet: in debug builds only.
    let features: &[_] = if profile == "debug" { &["log"] } else { &[] };
    let package = Package {
        name: "lb-ebpf",
        root_dir: "../lb-ebpf",
        features,
        ..Package::default()
    };
    build_ebpf([package], Toolchain::Custom(&toolchain.name))
}

/// Has aya-build work in a directory of the profile's. `OUT_DIR`, its own choice, changes with
/// the packages that cargo was asked for, and `core` would be compiled again for each choice.
fn share_build_directory(out_dir: &Path) -> Result<()> {
    let profile = out_dir.ancestors().nth(3).context("OUT_DIR is too short")?;
    let shared = profile.join("aya-build");
    fs::create_dir_all(&shared).with_context(|| format!("cannot make {}", shared.display()))?;
    let link = out_dir.join("aya-build");
    // One to elsewhere came with a copy of another workspace's target directory.
    if fs::read_link(&link).is_ok_and(|found| found != shared) {
        fs::remove_file(&link).with_context(|| format!("cannot remove {}", link.display()))?;
    }
    match symlink(&shared, link) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot link to {}", shared.display()))
        }
        _ => Ok(()),
    }
}

fn empty_objects(out_dir: &Path) -> Result<()> {
    for object in OBJECTS {
        let path = out_dir.join(object);
        fs::write(&path, []).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("cargo did not set {name}"))
}
