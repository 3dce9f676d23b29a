//! Backends that are told who the client is, by PROXY headers.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};
use lab::{Process, retry};
use serde_json::{Value, json};
use weir_tests::{agent::PATIENCE, certificate::self_signed, opened::opened};

use crate::scene::Scene;

/// Where nginx speaks HTTP, and TLS.
const NGINX: (u16, u16) = (8081, 8443);
/// Where HAProxy speaks HTTP/1, HTTP/2, and TLS.
const HAPROXY: (u16, u16, u16) = (8082, 8083, 8444);

/// One that wants a PROXY header on every connection, and says what was in it.
struct Backend {
    scene: Scene,
    chain: PathBuf,
    // They end first.
    _nginx: Process,
    _haproxy: Process,
}

/// What nginx is to answer: the client and the VIP, as the header says, and which connection and
/// request of that this is.
const NGINX_SAYS: &str = "$proxy_protocol_addr \
                          $proxy_protocol_server_addr:$proxy_protocol_server_port \
                          $connection $connection_requests\\n";
/// And HAProxy: the client, the VIP, and the name that the client has asked for.
const HAPROXY_SAYS: &str = "%[src] %[dst]:%[dst_port] <%[fc_pp_authority]>\\n";

impl Backend {
    fn new() -> Result<Self> {
        let scene = Scene::new(1, &json!({}), &json!({}))?;
        let directory = scene.lab.directory();
        let (chain, key) = self_signed(&directory, "inner", "inner.test")?;
        let at = |name: &str| directory.join(name).display().to_string();
        let nginx = format!(
            "daemon off; master_process off; pid {0}/pp.pid; error_log {0}/pp.log info;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; default_type text/plain; client_body_temp_path {0}/body;\n\
             proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; \
             scgi_temp_path {0}/s;\n\
             server {{ listen {1} proxy_protocol; listen {2} ssl proxy_protocol;\n\
             ssl_certificate {3}; ssl_certificate_key {4};\n\
             location / {{ return 200 \"{NGINX_SAYS}\"; }} }} }}\n",
            directory.display(),
            NGINX.0,
            NGINX.1,
            chain.display(),
            key.display(),
        );
        fs::write(at("pp.conf"), nginx)?;
        let bundle = [fs::read(&chain)?, fs::read(&key)?].concat();
        fs::write(at("bundle.pem"), bundle)?;
        let frontend = |port: u16, more: &str| {
            format!(
                "frontend at{port}\n bind :{port} accept-proxy {more}\n http-request return status \
                 200 content-type text/plain lf-string \"{HAPROXY_SAYS}\"\n"
            )
        };
        let haproxy = [
            "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n",
            &frontend(HAPROXY.0, ""),
            &frontend(HAPROXY.1, "proto h2"),
            &frontend(HAPROXY.2, &format!("ssl crt {}", at("bundle.pem"))),
        ];
        let haproxy = haproxy.concat();
        fs::write(at("pp.cfg"), haproxy)?;
        let namespace = &scene.lab.backends()[0].namespace;
        let mut command = namespace.command("nginx");
        command.args(["-c", &at("pp.conf")]);
        let nginx = Process::spawn(command)?;
        let mut command = namespace.command("haproxy");
        command.args(["-db", "-f", &at("pp.cfg")]);
        let haproxy = Process::spawn(command)?;
        // A second client, at the same place.
        let (first, other) = (scene.lab.client_addresses().v4, OTHER);
        ensure!(first.to_string() != other, "choose another");
        scene
            .lab
            .client()
            .ip(&format!("address add {OTHER}/32 dev lo\n"))?;
        let client = scene.lab.client_addresses().v4;
        let route = format!("route add {OTHER}/32 via {client}\n");
        scene.lab.lb().ip(&route)?;
        Ok(Self {
            scene,
            chain,
            _nginx: nginx,
            _haproxy: haproxy,
        })
    }

    /// Has the pool's backend be the one at this port.
    fn use_port(&self, port: u16, http: Value, check: Value) -> Result<()> {
        let address = format!("{}:{port}", self.scene.lab.backends()[0].addresses.v4);
        let mut pool = json!({ "http": http, "backends": { "be1": { "address": address } } });
        if !check.is_null() {
            pool["health_check"] = check;
        }
        self.scene.agent.change("PUT", "/v1/pools/web", &pool)
    }

    /// What is answered to requests on one connection of the client at this address.
    fn ask(&self, from: &str, requests: usize) -> Result<Vec<String>> {
        let url = self.scene.url("/");
        let urls = std::iter::repeat_n(url.as_str(), requests);
        let arguments: Vec<_> = ["--fail", "--interface", from]
            .into_iter()
            .chain(urls)
            .collect();
        let answer = self.scene.get(&arguments)?;
        Ok(answer.lines().map(str::to_owned).collect())
    }
}

/// Checks by which a server would have seen one.
const CHECKS: u64 = 20;

const OTHER: &str = "192.0.2.77";

fn words(line: &str) -> Result<Vec<&str>> {
    let words: Vec<_> = line.split(' ').collect();
    ensure!(words.len() >= 3, "{line}");
    Ok(words)
}

#[test]
fn backends_are_told_who_the_client_is() -> Result<()> {
    let backend = Backend::new()?;
    let own = backend.scene.lab.client_addresses().v4.to_string();
    let vip = backend.scene.target().to_string();
    for version in ["v1", "v2"] {
        for port in [NGINX.0, HAPROXY.0, HAPROXY.1] {
            let mut http = json!({ "proxy_protocol": version });
            if port == HAPROXY.1 {
                http["version"] = json!("2");
            }
            backend.use_port(port, http, Value::Null)?;
            retry(PATIENCE, || backend.ask(&own, 1))?;
            for _ in 0..3 {
                for from in [&*own, OTHER] {
                    for line in backend.ask(from, 3)? {
                        let says = words(&line)?;
                        ensure!(
                            says[..2] == [from, &vip],
                            "{version} {port}: {line}, not {from}"
                        );
                    }
                }
            }
        }
    }
    Ok(())
}

/// A client's requests share a connection, and clients do not.
#[test]
fn connections_are_one_clients() -> Result<()> {
    let backend = Backend::new()?;
    let own = backend.scene.lab.client_addresses().v4.to_string();
    backend.use_port(NGINX.0, json!({ "proxy_protocol": "v2" }), Value::Null)?;
    retry(PATIENCE, || backend.ask(&own, 1))?;
    let mut seen = Vec::new();
    for from in [&*own, OTHER, &own] {
        let lines = backend.ask(from, 3)?;
        let numbers = lines.iter().map(|line| {
            let (rest, request) = line.rsplit_once(' ').context("no number")?;
            let (_, connection) = rest.rsplit_once(' ').context("no number")?;
            Ok((connection.to_owned(), request.to_owned()))
        });
        let numbers = numbers.collect::<Result<Vec<_>>>()?;
        let connection = numbers[0].0.clone();
        let same = ["1", "2", "3"].map(|request| (connection.clone(), request.to_owned()));
        ensure!(numbers == same, "{lines:?}");
        ensure!(
            !seen.contains(&connection),
            "{connection} is another client's"
        );
        seen.push(connection);
    }
    // None is left open when the clients have gone.
    retry(PATIENCE, || {
        let ss = backend
            .scene
            .lab
            .lb()
            .command("ss")
            .args(["-Htn", "state", "established"])
            .output()?;
        let open = String::from_utf8(ss.stdout)?;
        ensure!(!open.contains(&format!(":{}", NGINX.0)), "{open}");
        Ok(())
    })
}

#[test]
fn backends_are_told_of_tls() -> Result<()> {
    let backend = Backend::new()?;
    let scene = &backend.scene;
    let (chain, key) = self_signed(&scene.lab.directory(), "own", "own.test")?;
    let mut service = serde_json::to_value(scene.service()?.config)?;
    service["tls"] = json!({
        "certificates": [{ "chain": chain, "key": key }],
        "passthrough": { "inner.test": "inner" },
    });
    let inner = format!("{}:{}", scene.lab.backends()[0].addresses.v4, HAPROXY.2);
    let pool = json!({
        "http": { "proxy_protocol": "v2" }, "backends": { "be1": { "address": inner } },
    });
    scene.agent.change("PUT", "/v1/pools/inner", &pool)?;
    scene.agent.change("PUT", "/v1/services/web", &service)?;
    let own = scene.lab.client_addresses().v4.to_string();
    let get = |name: &str, believe: &PathBuf| {
        let resolve = format!("{name}:80:{}", scene.vip);
        let believe = believe.display().to_string();
        let url = format!("https://{name}:80/");
        scene.get(&["--fail", "--resolve", &resolve, "--cacert", &believe, &url])
    };
    // Weir's own TLS, and a plain backend; then past Weir.
    backend.use_port(HAPROXY.0, json!({ "proxy_protocol": "v2" }), Value::Null)?;
    let line = retry(PATIENCE, || get("own.test", &chain))?;
    ensure!(
        words(&line)?[0] == own && line.contains("<own.test>"),
        "{line}"
    );
    let line = retry(PATIENCE, || get("inner.test", &backend.chain))?;
    ensure!(
        words(&line)?[0] == own && line.contains("<inner.test>"),
        "{line}"
    );
    // TLS with the backend begins behind the header.
    let tls = json!({ "ca": backend.chain, "server_name": "inner.test" });
    for (port, version) in [(NGINX.1, "v1"), (NGINX.1, "v2"), (HAPROXY.2, "v2")] {
        let http = json!({ "proxy_protocol": version, "tls": tls });
        backend.use_port(port, http, Value::Null)?;
        let line = get("own.test", &chain)?;
        ensure!(words(&line)?[0] == own, "{port} {version}: {line}");
    }
    Ok(())
}

#[test]
fn health_checks_begin_with_a_header_too() -> Result<()> {
    let backend = Backend::new()?;
    let check = json!({ "type": "http", "interval": "100ms", "rise": 1, "fall": 1 });
    for (port, http, healthy) in [
        (NGINX.0, json!({ "proxy_protocol": "v1" }), true),
        (NGINX.0, json!({}), false),
        (NGINX.0, json!({ "proxy_protocol": "v2" }), true),
        (HAPROXY.0, json!({}), false),
        (HAPROXY.0, json!({ "proxy_protocol": "v1" }), true),
        (HAPROXY.0, json!({ "proxy_protocol": "v2" }), true),
    ] {
        backend.use_port(port, http.clone(), check.clone())?;
        retry(PATIENCE, || {
            let health = backend.scene.backend("be1")?.health;
            let status = if healthy { "healthy" } else { "unhealthy" };
            ensure!(health.status == status, "{port} {http}: {health:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// A check that only connects says nothing, and the server does not get to see it: it has no
/// header to miss.
#[test]
fn checks_that_only_connect_are_not_seen() -> Result<()> {
    let backend = Backend::new()?;
    let scene = &backend.scene;
    let check = json!({ "type": "tcp", "interval": "100ms", "rise": 1, "fall": 1 });
    let process = scene.agent.status()?.pid;
    let mut checks = 0;
    for version in ["v1", "v2"] {
        let http = json!({ "proxy_protocol": version });
        backend.use_port(NGINX.0, http, check.clone())?;
        let before = opened(process)?;
        retry(PATIENCE, || {
            let health = scene.backend("be1")?.health;
            ensure!(health.status == "healthy", "{health:?}");
            let made = opened(process)? - before;
            ensure!(made >= CHECKS, "{made} checks");
            Ok(())
        })?;
        checks += CHECKS;
    }
    let seen = || {
        let log = fs::read_to_string(scene.lab.directory().join("pp.log"))?;
        let of_client = log.lines().filter(|line| line.contains(" client: "));
        anyhow::Ok((of_client.count() as u64, log))
    };
    // Where the agent gets no time between connecting and closing, the server sees one.
    let (count, log) = seen()?;
    ensure!(count * 2 < checks, "{log}");
    ensure!(!log.contains("[error]"), "{log}");
    // What it does see it tells of.
    let address = SocketAddr::new(scene.lab.backends()[0].addresses.v4.into(), NGINX.0);
    scene.lab.lb().run(move || {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"no header\r\n")
    })??;
    retry(PATIENCE, || {
        let log = seen()?.1;
        ensure!(log.contains("[error]"), "{log}");
        Ok(())
    })
}
