//! A store of shared configurations.

use anyhow::Result;
use nix::sys::signal::Signal;

use super::daemon::{Daemon, program};
use crate::Backend;

/// etcd, a cluster of one, on the backend's IPv4 address. `arguments` are added to its own.
/// It keeps what it has when it is stopped, and is killed for that.
///
/// # Errors
/// It cannot be started, or does not serve; with what it printed.
pub fn etcd(backend: &Backend, port: u16, arguments: &[&str]) -> Result<Daemon> {
    let address = backend.addresses.v4;
    let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
    let scheme = match arguments.iter().any(|word| word.starts_with("--cert-file")) {
        true => "https",
        false => "http",
    };
    program(
        backend,
        port,
        Signal::SIGKILL,
        move |namespace, directory| {
            let mut command = namespace.command("etcd");
            let listen = format!("{scheme}://{address}:{port}");
            let peer = format!("http://127.0.0.1:{}", port + 1);
            command.arg("--data-dir").arg(directory.join("data"));
            command.args(["--listen-client-urls", &listen]);
            command.args(["--advertise-client-urls", &listen]);
            command.args(["--listen-peer-urls", &peer]);
            command.args(["--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &format!("default={peer}")]);
            command.args(["--logger", "zap", "--log-level", "warn"]);
            command.args(&arguments);
            command
        },
    )
}
