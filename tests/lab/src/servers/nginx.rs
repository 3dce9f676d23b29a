//! An HTTP server.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::daemon::{Daemon, program};
use crate::Backend;

/// nginx, one process, on all the backend's addresses. It answers `GET /` with the backend's
/// name and a newline, and `GET /healthz` with `ok`.
///
/// # Errors
/// It cannot be started, or does not serve; with what it printed.
pub fn nginx(backend: &Backend, port: u16) -> Result<Daemon> {
    let name = &backend.name;
    let server = format!(
        r#"
    server {{
        listen {port} backlog=4096;
        listen [::]:{port} ipv6only=on backlog=4096;
        location = / {{ return 200 "{name}\n"; }}
        location = /healthz {{ return 200 "ok"; }}
    }}
"#
    );
    nginx_with(backend, port, &server)
}

/// nginx, one process, with these `server` and `upstream` blocks, one of which listens on `port`.
///
/// # Errors
/// It cannot be started, or does not serve; with what it printed.
pub fn nginx_with(backend: &Backend, port: u16, blocks: &str) -> Result<Daemon> {
    let file = backend.directory.join(format!("nginx-{port}.conf"));
    fs::write(&file, configuration(blocks))
        .with_context(|| format!("cannot write {}", file.display()))?;
    program(
        backend,
        port,
        Signal::SIGTERM,
        move |namespace, directory| {
            let mut command = namespace.command("nginx");
            command.arg("-p").arg(directory).arg("-c").arg(&file);
            command.args(["-e", "stderr"]);
            command
        },
    )
}

fn configuration(blocks: &str) -> String {
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
{blocks}
}}
"#
    )
}
