//! Proxies of TCP connections, one process each, as their manuals have them.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use anyhow::Result;
use lab::{Lab, Process};
use weir_tests::cpu;

use crate::pinned;

/// Where Debian has nginx's module.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(crate) fn haproxy(lab: &Lab, vip: SocketAddr) -> Result<Process> {
    let servers: String = backends(lab, vip)
        .map(|(name, address)| format!("    server {name} {address}\n"))
        .collect();
    let text = format!(
        "global
    nbthread 1
    maxconn 8192
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen web
    bind {vip}
    balance roundrobin
{servers}"
    );
    start(lab, "haproxy", &text, |command, file| {
        command.args(["haproxy", "-db", "-f"]).arg(file);
    })
}

pub(crate) fn nginx_stream(lab: &Lab, vip: SocketAddr) -> Result<Process> {
    let servers: String = backends(lab, vip)
        .map(|(_, address)| format!("        server {address};\n"))
        .collect();
    let text = format!(
        "load_module {MODULE};
daemon off;
master_process off;
error_log stderr;
pid proxy.pid;
events {{
    worker_connections 8192;
}}
stream {{
    upstream web {{
{servers}    }}
    server {{
        listen {vip} backlog=4096;
        proxy_pass web;
    }}
}}
"
    );
    let directory = lab.directory();
    start(lab, "nginx", &text, |command, file| {
        command.args(["nginx", "-e", "stderr", "-p"]).arg(directory);
        command.arg("-c").arg(file);
    })
}

fn backends(lab: &Lab, vip: SocketAddr) -> impl Iterator<Item = (&str, SocketAddr)> {
    let all = lab.backends().iter();
    all.map(move |backend| {
        let address = (backend.addresses.v4, vip.port()).into();
        (backend.name.as_str(), address)
    })
}

fn start(
    lab: &Lab,
    name: &str,
    configuration: &str,
    program: impl FnOnce(&mut Command, &Path),
) -> Result<Process> {
    let file = lab.directory().join(format!("{name}.conf"));
    fs::write(&file, configuration)?;
    pinned::start(lab, name, &[cpu::last()?], |command| {
        program(command, &file)
    })
}
