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
    tool("openssl", "openssl", "makes certificates"),
    tool("wrk", "wrk", "makes HTTP load"),
    tool(
        "h2load",
        "nghttp2-client",
        "makes HTTP/2 load, and HTTP load at a fixed rate",
    ),
    tool(
        "haproxy",
        "haproxy",
        "is another proxy, as a client or backend of Weir's and to compare it with",
    ),
    tool(
        "keepalived",
        "keepalived",
        "is the other node of a pair that shares addresses",
    ),
    tool(
        "bird",
        "bird2",
        "announces the addresses that several nodes share to a router",
    ),
    tool(
        "etcd",
        "etcd-server",
        "holds the configuration that nodes share",
    ),
    tool("etcdctl", "etcd-client", "looks at what is in etcd"),
    tool(
        "/usr/lib/postgresql/*/bin/pgbench",
        "postgresql",
        "shows a database behind Weir",
    ),
];

/// What the tests alone need.
const TESTERS: &[Tool] = &[
    tool(
        "slowhttptest",
        "slowhttptest",
        "is a client that takes its time, to see that it cannot take others'",
    ),
    tool(
        "chromium-headless-shell",
        "chromium-headless-shell",
        "is a browser",
    ),
    tool(
        "/usr/lib/python3/dist-packages/psycopg2/__init__.py",
        "python3-psycopg2",
        "lets an example's application servers ask a database",
    ),
    tool(
        "redis-server",
        "redis-server",
        "holds the sessions that an example's servers share",
    ),
    tool(
        "/usr/lib/python3/dist-packages/redis/__init__.py",
        "python3-redis",
        "lets them ask it",
    ),
];

/// What the client of etcd is built with.
const BUILDERS: &[Tool] = &[
    tool(
        "protoc",
        "protobuf-compiler",
        "makes the client of etcd of its protocol's description",
    ),
    tool(
        "/usr/include/google/protobuf/descriptor.proto",
        "libprotobuf-dev",
        "has the descriptions that etcd's builds on",
    ),
];

/// What else `bench forward` and `bench l7` compare Weir with, and by.
const OTHERS: &[Tool] = &[
    tool("nft", "nftables", "balances by the kernel's own NAT"),
    tool("conntrack", "conntrack", "empties its table between rounds"),
    tool(
        "/usr/lib/nginx/modules/ngx_stream_module.so",
        "libnginx-mod-stream",
        "makes nginx a proxy of TCP",
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
    install_missing(TOOLS, "the tests and the demo run these programs")
}

/// Installs those that the tests alone need.
pub(super) fn install_testers() -> Result<()> {
    install_missing(TESTERS, "the tests run these programs")
}

/// Installs those that the build needs beside a compiler.
pub(super) fn install_builders() -> Result<()> {
    install_missing(
        BUILDERS,
        "a part of the agent is generated when it is built",
    )
}

/// Installs those that Weir is compared with.
pub(super) fn install_others() -> Result<()> {
    install_missing(OTHERS, "the benchmark compares Weir with these programs")
}

fn install_missing(tools: &[Tool], why: &str) -> Result<()> {
    let missing: Vec<_> = tools.iter().filter(|tool| !tool.is_there()).collect();
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
    apt::install(&packages, why)
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
    use super::{BUILDERS, OTHERS, TESTERS, TOOLS, tool};

    #[test]
    fn finds_commands_and_files() {
        assert!(tool("sh", "dash", "").is_there());
        assert!(tool("/*/passwd", "base-files", "").is_there());
        assert!(!tool("weir-has-no-such-tool", "none", "").is_there());
        assert!(!tool("/usr/*/weir-has-no-such-tool", "none", "").is_there());
    }

    #[test]
    fn every_pattern_is_valid() {
        let all = TOOLS.iter().chain(TESTERS).chain(BUILDERS).chain(OTHERS);
        for tool in all {
            assert!(
                glob::Pattern::new(tool.look_for).is_ok(),
                "{}",
                tool.look_for
            );
        }
    }
}
