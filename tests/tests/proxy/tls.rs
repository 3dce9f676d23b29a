//! TLS with clients and backends, and connections that pass by their name.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use lab::{Process, retry};
use rustls::HandshakeKind;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weir_tests::{
    agent::PATIENCE,
    certificate::{self_signed, valid_for},
    https::Https,
};

use crate::scene::Scene;

const PORT: u16 = 8443;

/// Changes the service by adding these fields.
fn change(scene: &Scene, fields: &Value) -> Result<()> {
    let mut service = serde_json::to_value(scene.service()?.config)?;
    for (key, value) in fields.as_object().into_iter().flatten() {
        service[key] = value.clone();
    }
    scene.agent.change("PUT", "/v1/services/web", &service)
}

/// What curl says of `https://NAME/PATH`, which it is to believe by this certificate.
fn get(scene: &Scene, name: &str, believe: &Path, more: &[&str], path: &str) -> Result<String> {
    let resolve = format!("{name}:80:{}", scene.vip);
    let believe = believe.display().to_string();
    let url = format!("https://{name}:80{path}");
    let fixed = ["--resolve", &resolve, "--cacert", &believe, &url];
    scene.get(&[more, &fixed[..]].concat())
}

/// A certificate for two days is warned of when it is read, at the start and again; one for
/// longer is not.
#[test]
fn certificates_that_end_soon_are_warned_of() -> Result<()> {
    let mut scene = Scene::new(1, &json!({}), &json!({}))?;
    let directory = scene.lab.directory();
    let warnings = |scene: &Scene, file: &Path| {
        let file = file.display().to_string();
        let log = scene.agent.log();
        let warned = |line: &&str| line.contains("WARN") && line.contains("expires on");
        log.lines()
            .filter(warned)
            .filter(|line| line.contains(&file))
            .count()
    };
    let (soon, soon_key) = self_signed(&directory, "soon", "a.test")?;
    let (long, long_key) = valid_for(&directory, "long", "b.test", 15)?;
    let tls = json!({ "certificates": [
        { "chain": soon, "key": soon_key }, { "chain": long, "key": long_key },
    ] });
    let config = scene.service()?.config;
    scene.agent.configure(|document| {
        document["services"]["web"] = serde_json::to_value(&config).unwrap_or_default();
        document["services"]["web"]["tls"] = tls;
    })?;
    drop(scene.agent.take_over()?);
    ensure!(warnings(&scene, &soon) == 1, "{}", scene.agent.log());
    ensure!(warnings(&scene, &long) == 0, "{}", scene.agent.log());
    // Read again when it changes: the one is as new as the other was old.
    let (new, new_key) = valid_for(&directory, "new", "a.test", 15)?;
    fs::rename(new_key, &soon_key)?;
    fs::rename(new, &soon)?;
    let (old, old_key) = self_signed(&directory, "old", "b.test")?;
    fs::rename(old_key, &long_key)?;
    fs::rename(old, &long)?;
    retry(PATIENCE, || {
        ensure!(warnings(&scene, &long) == 1, "{}", scene.agent.log());
        Ok(())
    })?;
    ensure!(warnings(&scene, &soon) == 1, "{}", scene.agent.log());
    Ok(())
}

#[test]
fn speaks_tls_with_clients_and_reads_new_certificates() -> Result<()> {
    let scene = Scene::new(1, &json!({}), &json!({}))?;
    let (chain, key) = self_signed(&scene.lab.directory(), "a", "a.test")?;
    let wrong = json!({ "tls": { "certificates": [{ "chain": "/nowhere.pem", "key": key }] } });
    let refused = change(&scene, &wrong).err().map(|error| error.to_string());
    let refused = refused.unwrap_or_default();
    ensure!(refused.contains("certificates[0].chain"), "{refused}");
    let tls = json!({ "certificates": [{ "chain": chain, "key": key }] });
    change(&scene, &json!({ "tls": tls }))?;
    for (version, more) in [
        ("2", &["--http2"][..]),
        ("1.1", &["--http1.1"]),
        ("2", &["--tls-max", "1.2"]),
    ] {
        let write = ["-w", "%{http_version}\n"];
        let answer = get(&scene, "a.test", &chain, &[more, &write].concat(), "/head")?;
        ensure!(
            answer.ends_with(&format!("{version}\n")),
            "{more:?}: {answer}"
        );
        ensure!(answer.contains("x-forwarded-proto: https"), "{answer}");
    }
    let body = scene.lab.directory().join("body");
    fs::write(&body, "x".repeat(3_000_000))?;
    let post = format!("@{}", body.display());
    for version in ["--http1.1", "--http2"] {
        let more = [version, "--data-binary", &post];
        let echoed = get(&scene, "a.test", &chain, &more, "/echo")?;
        ensure!(
            echoed.len() == 3_000_000,
            "{version}: {} bytes",
            echoed.len()
        );
    }
    // A new certificate for the same name: believed alone, it is soon the one that is shown.
    let (new, new_key) = self_signed(&scene.lab.directory(), "new", "a.test")?;
    fs::rename(&new_key, &key)?;
    let shown = scene.lab.directory().join("shown.pem");
    fs::copy(&new, &shown)?;
    fs::rename(&new, &chain)?;
    retry(PATIENCE, || {
        get(&scene, "a.test", &shown, &[], "/name").map(drop)
    })
}

#[test]
fn asks_clients_for_certificates() -> Result<()> {
    let scene = Scene::new(1, &json!({}), &json!({}))?;
    let (chain, key) = self_signed(&scene.lab.directory(), "a", "a.test")?;
    let (client, client_key) = self_signed(&scene.lab.directory(), "client", "somebody")?;
    let tls = json!({
        "certificates": [{ "chain": chain, "key": key }],
        "client_auth": { "ca": client },
    });
    change(&scene, &json!({ "tls": tls }))?;
    let (cert, cert_key) = (
        client.display().to_string(),
        client_key.display().to_string(),
    );
    let shows = [
        "--cert",
        &cert,
        "--key",
        &cert_key,
        "-H",
        "X-Client-Subject: root",
    ];
    let head = get(&scene, "a.test", &chain, &shows, "/head")?;
    ensure!(head.contains("x-client-subject: CN=somebody"), "{head}");
    ensure!(!head.contains("root"), "{head}");
    ensure!(get(&scene, "a.test", &chain, &[], "/name").is_err());
    Ok(())
}

#[test]
fn speaks_tls_with_backends_and_passes_names_through() -> Result<()> {
    let scene = Scene::new(1, &json!({}), &json!({}))?;
    let backend = &scene.lab.backends()[0];
    let (chain, key) = self_signed(&scene.lab.directory(), "inner", "inner.test")?;
    let directory = scene.lab.directory();
    let configuration = format!(
        "daemon off; master_process off; pid {0}/tls.pid; error_log {0}/tls.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; default_type text/plain; client_body_temp_path {0}/body;\n\
         proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n\
         server {{ listen {PORT} ssl http2; ssl_certificate {1}; ssl_certificate_key {2};\n\
         location / {{ return 200 \"$ssl_server_name $server_protocol\\n\"; }} }} }}\n",
        directory.display(),
        chain.display(),
        key.display()
    );
    let file = directory.join("tls.conf");
    fs::write(&file, configuration)?;
    let mut command = backend.namespace.command("nginx");
    command.arg("-c").arg(&file);
    let _nginx = Process::spawn(command)?;
    let address = format!("{}:{PORT}", backend.addresses.v4);
    let pool = |tls: Value| {
        let pool = json!({
            "http": { "tls": tls }, "backends": { "be1": { "address": address } },
        });
        scene.agent.change("PUT", "/v1/pools/web", &pool)
    };
    // The name that is verified, by ALPN with HTTP/2.
    pool(json!({ "ca": chain, "server_name": "inner.test" }))?;
    retry(PATIENCE, || {
        let answer = scene.get(&[&scene.url("/")])?;
        ensure!(answer == "inner.test HTTP/2.0\n", "{answer}");
        Ok(())
    })?;
    // Another name is not.
    pool(json!({ "ca": chain, "server_name": "other.test" }))?;
    let status = ["-o", "/dev/null", "-w", "%{http_code}", &scene.url("/")];
    let status = scene.get(&status)?;
    ensure!(status == "502" || status == "503", "{status}");
    // Past Weir, TLS and all.
    pool(json!({ "ca": chain, "server_name": "inner.test" }))?;
    let (own, own_key) = self_signed(&scene.lab.directory(), "own", "own.test")?;
    let tls = json!({
        "certificates": [{ "chain": own, "key": own_key }],
        "passthrough": { "inner.test": "web" },
    });
    change(&scene, &json!({ "tls": tls }))?;
    let answer = get(&scene, "inner.test", &chain, &["--http1.1"], "/")?;
    ensure!(answer == "inner.test HTTP/1.1\n", "{answer}");
    let answer = get(&scene, "own.test", &own, &["--http1.1"], "/")?;
    ensure!(answer == "inner.test HTTP/2.0\n", "{answer}");
    let http = scene.service()?.http.unwrap_or_default();
    ensure!(http.tunnels == 1, "{http:?}");
    Ok(())
}

/// Certificates are replaced while clients come and go: none is refused, sessions are resumed, and
/// the new certificate is soon the one that is shown.
#[test]
fn certificates_change_under_load_and_sessions_are_resumed() -> Result<()> {
    const CLIENTS: usize = 8;
    let scene = Scene::new(1, &json!({}), &json!({}))?;
    let directory = scene.lab.directory();
    let made = ["one", "two", "three", "four"].map(|file| self_signed(&directory, file, "a.test"));
    let made = made.into_iter().collect::<Result<Vec<_>>>()?;
    // What Weir reads; what is believed stays where it is.
    let (chain, key) = (directory.join("chain.pem"), directory.join("chain.key"));
    let put = |new: &(PathBuf, PathBuf)| -> Result<()> {
        for (from, to) in [(&new.0, &chain), (&new.1, &key)] {
            let copy = to.with_extension("new");
            fs::copy(from, &copy)?;
            fs::rename(&copy, to)?;
        }
        Ok(())
    };
    put(&made[0])?;
    let tls = json!({ "certificates": [{ "chain": chain, "key": key }] });
    change(&scene, &json!({ "tls": tls }))?;
    let believe: Vec<&Path> = made.iter().map(|(chain, _)| &**chain).collect();
    let (connections, resumed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let stop = AtomicBool::new(false);
    let client = async |_| -> Result<()> {
        let https = Https::new(scene.target(), "a.test", &believe, &["http/1.1"])?;
        while !stop.load(Ordering::Relaxed) {
            let mut stream = https.connect().await?.into_inner();
            let ask = b"GET /name HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
            stream.write_all(ask).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            connections.fetch_add(1, Ordering::Relaxed);
            if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                resumed.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    let load = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(futures::future::try_join_all((0..CLIENTS).map(client)))
    };
    std::thread::scope(|scope| {
        let load = scope.spawn(|| scene.lab.client().run(load)?);
        let changed = made[1..].iter().try_for_each(|new| {
            put(new)?;
            retry(PATIENCE, || {
                get(&scene, "a.test", &new.0, &[], "/name").map(drop)
            })
        });
        stop.store(true, Ordering::Relaxed);
        load.join().ok().context("it panicked")??;
        changed
    })?;
    let (connections, resumed) = (connections.into_inner(), resumed.into_inner());
    println!("{connections} connections, {resumed} of them resumed");
    ensure!(
        connections > 50 && resumed > connections / 2,
        "{resumed} of {connections} connections resumed a session"
    );
    Ok(())
}
