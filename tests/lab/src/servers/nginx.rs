//! An HTTP server.

use std::{fs, net::TcpStream};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::daemon::{Daemon, Recipe};
use crate::Backend;

/// nginx, one process, on all the backend's addresses. It answers `GET /` with the backend's
/// name and a newline, and `GET /healthz` with `ok`.
///
/// # Errors
/// It cannot be started, or does not serve; with what it printed.
pub fn nginx(backend: &Backend, port: u16) -> Result<Daemon> {
    let directory = backend.directory.join(format!("nginx-{port}"));
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let file = directory.join("nginx.conf");
    fs::write(&file, configuration(&backend.name, port))
        .with_context(|| format!("cannot write {}", file.display()))?;
    let (log, address) = (directory.join("log"), (backend.addresses.v4, port));
    let (namespace, client) = (backend.namespace.clone(), backend.namespace.clone());
    Daemon::started(Recipe {
        host: backend.namespace.clone(),
        port,
        command: Box::new(move || {
            let mut command = namespace.command("nginx");
            command.arg("-p").arg(&directory).arg("-c").arg(&file);
            command.args(["-e", "stderr"]);
            command
        }),
        ready: Box::new(move || {
            client.run(|| TcpStream::connect(address))??;
            Ok(())
        }),
        end: Signal::SIGTERM,
        log,
    })
}

fn configuration(name: &str, port: u16) -> String {
    // Without a master there is one process, which is the one that gets the signals.
    format!(
        r#"
daemon off;
master_process off;
error_log stderr;
pid nginx.pid;
events {{
    worker_connections 8192;
}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 10000000;
    keepalive_timeout 1h;
    default_type text/plain;
    server {{
        listen {port} backlog=4096;
        listen [::]:{port} ipv6only=on backlog=4096;
        location = / {{ return 200 "{name}\n"; }}
        location = /healthz {{ return 200 "ok"; }}
    }}
}}
"#
    )
}
