//! The others, as their manuals have them for this: connections to servers are kept, nothing is
//! logged, each worker has a core of its own, the client is told of in the same headers.

use std::fs;

use anyhow::Result;
use lab::Process;

use super::contender::Place;
use crate::pinned;

pub(crate) fn haproxy(place: &Place<'_>) -> Result<Process> {
    let [plain, tls] = place.addresses();
    let servers: String = place
        .backends()
        .map(|(name, address)| format!("    server {name} {address}\n"))
        .collect();
    // Certificate and key in one file.
    let pem = place.lab.directory().join("haproxy.pem");
    let both = [fs::read(place.chain)?, fs::read(place.key)?].concat();
    fs::write(&pem, both)?;
    let pins = (1..).zip(place.cpus);
    let pins: String = pins
        .map(|(thread, cpu)| format!("    cpu-map 1/{thread} {cpu}\n"))
        .collect();
    let text = format!(
        "global
    nbthread {}
{pins}    maxconn 10500
    no strict-limits
    ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
    mode http
    timeout connect 5s
    timeout client 10m
    timeout server 10m
    timeout http-keep-alive 10m
    http-reuse always
listen web
    bind {plain} shards by-thread backlog 4096
    bind {tls} shards by-thread backlog 4096 ssl crt {} alpn h2,http/1.1
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Port %[dst_port]
    balance roundrobin
{servers}",
        place.cpus.len(),
        pem.display(),
    );
    start(place, "haproxy", &text, &["-db", "-f"])
}

pub(crate) fn nginx(place: &Place<'_>) -> Result<Process> {
    let [plain, tls] = place.addresses();
    let servers: String = place
        .backends()
        .map(|(_, address)| format!("        server {address};\n"))
        .collect();
    // A mask each, whose last digit is of the first CPU.
    let pins = place.cpus.iter();
    let pins: String = pins.map(|&cpu| format!(" 1{:0<cpu$}", "")).collect();
    let text = format!(
        r#"
daemon off;
error_log stderr;
pid proxy.pid;
user root;
worker_processes {workers};
worker_cpu_affinity{pins};
events {{
    worker_connections 12000;
}}
http {{
    access_log off;
    client_body_temp_path proxy-body;
    proxy_temp_path proxy-temp;
    fastcgi_temp_path proxy-fastcgi;
    uwsgi_temp_path proxy-uwsgi;
    scgi_temp_path proxy-scgi;
    keepalive_requests 10000000;
    keepalive_timeout 10m;
    upstream web {{
{servers}        keepalive 1024;
        keepalive_requests 10000000;
        keepalive_timeout 10m;
    }}
    server {{
        listen {plain} reuseport backlog=4096;
        listen {tls} reuseport backlog=4096 ssl http2;
        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        location / {{
            proxy_pass http://web;
            proxy_http_version 1.1;
            proxy_buffers 16 16k;
            proxy_max_temp_file_size 0;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Port $server_port;
        }}
    }}
}}
"#,
        workers = place.cpus.len(),
        chain = place.chain.display(),
        key = place.key.display(),
    );
    let directory = place.lab.directory().display().to_string();
    start(
        place,
        "nginx",
        &text,
        &["-e", "stderr", "-p", &directory, "-c"],
    )
}

fn start(place: &Place<'_>, name: &str, text: &str, arguments: &[&str]) -> Result<Process> {
    let file = place.lab.directory().join(format!("{name}.conf"));
    fs::write(&file, text)?;
    pinned::start(place.lab, name, place.cpus, |command| {
        command.arg(name).args(arguments).arg(&file);
    })
}
