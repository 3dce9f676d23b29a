//! cargo, for those that run what it builds.

use std::{env, path::Path, process::Command};

/// The cargo that runs this, at the top of the workspace, as if it were run by hand: build scripts
/// that look at what cargo says of the package that it runs would build everything anew.
pub fn cargo() -> Command {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(lab.ancestors().nth(2).unwrap_or(lab));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}
