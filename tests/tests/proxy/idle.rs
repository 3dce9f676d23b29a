//! What connections cost that do nothing.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::retry;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use weir_tests::{certificate::self_signed, https::Https, memory::resident};

use crate::scene::Scene;

/// A kind of connection.
struct Kind {
    name: &'static str,
    tls: bool,
    h2: bool,
    connections: usize,
    /// Most bytes that one may cost, in a debug build and by pages.
    most: u64,
}

const fn kind(name: &'static str, (tls, h2): (bool, bool), connections: usize, most: u64) -> Kind {
    Kind {
        name,
        tls,
        h2,
        connections,
        most,
    }
}

/// For comparison: hyper keeps about 20 kB for one of HTTP/1.1.
const KINDS: [Kind; 4] = [
    kind("HTTP/1.1", (false, false), 10_000, 5 << 10),
    kind("HTTP/1.1 over TLS", (true, false), 1000, 40 << 10),
    kind("HTTP/2", (false, true), 1000, 40 << 10),
    kind("HTTP/2 over TLS", (true, true), 1000, 80 << 10),
];

trait Connection: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Connection for T {}

#[test]
fn idle_connections_cost_little_memory() -> Result<()> {
    for kind in &KINDS {
        one_of(kind).context(kind.name)?;
    }
    Ok(())
}

fn one_of(kind: &Kind) -> Result<()> {
    let http = json!({ "timeouts": { "keepalive": "10m", "header": "10m" } });
    let mut scene = Scene::new(1, &http, &json!({}))?;
    let (chain, key) = self_signed(&scene.lab.directory(), "www", "www.test")?;
    let mut service = serde_json::to_value(scene.service()?.config)?;
    if kind.tls {
        service["tls"] = json!({ "certificates": [{ "chain": chain, "key": key }] });
        scene.agent.change("PUT", "/v1/services/web", &service)?;
    }
    let alpn = if kind.h2 { "h2" } else { "http/1.1" };
    let https = Https::new(scene.target(), "www.test", &[&chain], &[alpn])?;
    let (agent, target) = (scene.agent.process().id(), scene.target());
    let client = scene.lab.client().clone();
    client.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            // What comes with the first requests is not counted.
            for _ in 0..200 {
                ask(&mut open(kind, &https, target).await?, kind.h2).await?;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            let before = resident(agent)?;
            let mut idle = Vec::new();
            for _ in 0..kind.connections {
                let mut connection = open(kind, &https, target).await?;
                ask(&mut connection, kind.h2).await?;
                idle.push(connection);
            }
            retry(Duration::from_secs(30), || {
                let grown = resident(agent)?.saturating_sub(before);
                let each = grown / kind.connections as u64;
                ensure!(each <= kind.most, "{each} bytes a connection");
                println!("{}: {each} bytes a connection", kind.name);
                Ok(())
            })?;
            let http = scene.service()?.http.context("no counters")?;
            ensure!(http.open_connections == kind.connections as u64, "{http:?}");
            // They are still there.
            if !kind.h2 {
                for connection in idle.iter_mut().step_by(50) {
                    ask(connection, false).await?;
                }
            }
            Ok(())
        })
    })?
}

async fn open(kind: &Kind, https: &Https, target: SocketAddr) -> Result<Box<dyn Connection>> {
    Ok(match kind.tls {
        true => Box::new(https.connect().await?.into_inner()),
        false => Box::new(TcpStream::connect(target).await?),
    })
}

/// Asks once, as the first thing on the connection where it is of HTTP/2, and waits for the answer.
async fn ask(connection: &mut Box<dyn Connection>, h2: bool) -> Result<()> {
    const ONE: &[u8] = b"GET /name HTTP/1.1\r\nHost: a\r\n\r\n";
    // Settings; then HEADERS of `GET http://a/` with END_STREAM and END_HEADERS, in HPACK.
    const TWO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
        \0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a";
    connection.write_all(if h2 { TWO } else { ONE }).await?;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|bytes| bytes == b"be1\n") {
        let count = connection.read_buf(&mut answer).await?;
        ensure!(count > 0, "closed: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}
