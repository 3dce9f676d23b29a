//! A store of shared configurations.

use std::{fs, net::TcpStream};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::daemon::{Daemon, Recipe};
use crate::Backend;

/// etcd, a cluster of one, on the backend's IPv4 address. `arguments` are added to its own.
/// It keeps what it has when it is stopped, and is killed for that.
///
/// # Errors
/// It cannot be started, or does not serve; with what it printed.
pub fn etcd(backend: &Backend, port: u16, arguments: &[&str]) -> Result<Daemon> {
    let directory = backend.directory.join(format!("etcd-{port}"));
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let (log, address) = (directory.join("log"), (backend.addresses.v4, port));
    let (namespace, client) = (backend.namespace.clone(), backend.namespace.clone());
    let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
    let scheme = match arguments.iter().any(|word| word.starts_with("--cert-file")) {
        true => "https",
        false => "http",
    };
    Daemon::started(Recipe {
        host: backend.namespace.clone(),
        port,
        command: Box::new(move || {
            let mut command = namespace.command("etcd");
            let listen = format!("{scheme}://{}:{port}", address.0);
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
        }),
        ready: Box::new(move || {
            client.run(|| TcpStream::connect(address))??;
            Ok(())
        }),
        end: Signal::SIGKILL,
        log,
    })
}
