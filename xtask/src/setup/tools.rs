//! The programs with which the demo, the tests and the benchmarks make networks and traffic.

use anyhow::Result;

use super::{apt, step};
use crate::command::find;

/// A program, and the Debian package that has it.
struct Tool {
    /// A command, or, with a slash, a file (`*` stands for any one directory).
    look_for: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const TOOLS: &[Tool] = &[
    tool("ip", "iproute2", "makes namespaces and links"),
    tool(
        "ethtool",
        "ethtool",
        "turns off the links' offloads, which lose checksums in XDP",
    ),
    tool(
        "nginx",
        "nginx-light",
        "is the demo's and the tests' HTTP backend",
    ),
    tool(
        "ping",
        "iputils-ping",
        "shows whether a network is joined as it should be",
    ),
    tool("curl", "curl", "is a real HTTP client"),
    tool("wrk", "wrk", "makes HTTP load"),
    tool(
        "/usr/lib/postgresql/*/bin/pgbench",
        "postgresql",
        "shows a database behind Weir",
    ),
];

const fn tool(look_for: &'static str, package: &'static str, purpose: &'static str) -> Tool {
    Tool {
        look_for,
        package,
        purpose,
    }
}

/// Installs the packages of what is missing.
pub(super) fn install() -> Result<()> {
    let missing: Vec<_> = TOOLS.iter().filter(|tool| !tool.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        step(
            &format!("{} is missing", tool.look_for),
            &format!("it {}", tool.purpose),
        );
    }
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    apt::install(&packages, "the tests and the demo run these programs")
}

impl Tool {
    fn is_there(&self) -> bool {
        if self.look_for.contains('/') {
            glob::glob(self.look_for).is_ok_and(|mut found| found.any(|file| file.is_ok()))
        } else {
            find(self.look_for).is_some()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{TOOLS, tool};

    #[test]
    fn finds_commands_and_files() {
        assert!(tool("sh", "dash", "").is_there());
        assert!(tool("/*/passwd", "base-files", "").is_there());
        assert!(!tool("weir-has-no-such-tool", "none", "").is_there());
        assert!(!tool("/usr/*/weir-has-no-such-tool", "none", "").is_there());
    }

    #[test]
    fn every_pattern_is_valid() {
        for tool in TOOLS {
            assert!(
                glob::Pattern::new(tool.look_for).is_ok(),
                "{}",
                tool.look_for
            );
        }
    }
}
