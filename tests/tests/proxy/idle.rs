//! What connections cost that do nothing.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::retry;
use serde_json::json;

use crate::scene::Scene;

const CONNECTIONS: u64 = 5000;

/// Most bytes that one may cost: half of what hyper keeps for one. Some room above the 8 kB that
/// are aimed at, as this is a debug build and memory is counted in pages.
const EACH: u64 = 10 * 1024;

#[test]
fn an_idle_connection_costs_little_memory() -> Result<()> {
    let http = json!({ "timeouts": { "keepalive": "10m", "header": "10m" } });
    let mut scene = Scene::new(1, &http, &json!({}))?;
    let ask = |stream: &mut TcpStream| -> Result<()> {
        stream.write_all(b"GET /name HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes)?;
        ensure!(bytes[..count].starts_with(b"HTTP/1.1 200 "), "no answer");
        Ok(())
    };
    // What comes with the first requests is not counted.
    for _ in 0..200 {
        ask(&mut scene.connect()?)?;
    }
    std::thread::sleep(Duration::from_secs(3));
    let agent = scene.agent.process().id();
    let before = resident(agent)?;
    let mut idle = Vec::new();
    for number in 0..CONNECTIONS {
        let mut stream = scene.connect()?;
        ask(&mut stream)?;
        idle.push(stream);
        // Those that ask at the same time need memory at the same time: not what is asked here.
        if number % 250 == 249 {
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    retry(Duration::from_secs(30), || {
        let each = resident(agent)?.saturating_sub(before) / CONNECTIONS;
        ensure!(each <= EACH, "{each} bytes a connection");
        println!("{each} bytes a connection");
        Ok(())
    })?;
    // They are still there.
    for stream in idle.iter_mut().step_by(50) {
        ask(stream)?;
    }
    let http = scene.service()?.http.context("no counters")?;
    ensure!(http.open_connections == CONNECTIONS, "{http:?}");
    Ok(())
}

/// Bytes of memory that a process has in use.
fn resident(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("no VmRSS")?.parse::<u64>()? * 1024)
}
