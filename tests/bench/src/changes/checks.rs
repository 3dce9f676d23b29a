//! What health checks cost the agent.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixStream,
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, retry};
use serde_json::{Value, json};
use weir_tests::{cpu, memory, opened::opened};

use super::{report::Report, scene};
use crate::{agent, napi::time};

/// Backends of a pool, of which each has a service.
const POOL: usize = 100;
/// How long the checks are watched.
const WATCHED: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// What so many checks took.
#[derive(Clone, Copy)]
pub(crate) struct Checks {
    pub(crate) backends: usize,
    pub(crate) interval: Duration,
    /// From the agent's start until each backend had been checked once.
    pub(crate) first: Duration,
    /// Made in a second.
    pub(crate) rate: f64,
    /// Of one CPU, by the agent and by the kernel for it.
    pub(crate) cpu: f64,
    /// Bytes of memory that the agent has in use.
    pub(crate) memory: u64,
    /// Backends that were not taken for healthy at the end: one failure is enough.
    pub(crate) failed: usize,
}

/// Measures a few thousand often, and many seldom.
pub(crate) fn measure(quick: bool, report: &mut Report) -> Result<()> {
    let scales: &[_] = match quick {
        true => &[(1000, 2)],
        false => &[(10_000, 2), (100_000, 10)],
    };
    for &(backends, interval) in scales {
        report.checks(one(backends, Duration::from_secs(interval))?);
    }
    Ok(())
}

fn one(backends: usize, interval: Duration) -> Result<Checks> {
    let lab = scene::lab()?;
    let server = &lab.backends()[0].namespace;
    server.ip("route add local 172.16.0.0/12 dev lo\n")?;
    let listener = server.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, scene::PORT)))??;
    // Most checks end before there is anything to accept; what is left would fill the queue. It
    // ends with this process.
    thread::spawn(move || listener.incoming().for_each(drop));
    let text = scene::text(
        &lab,
        super::Scale {
            services: backends / POOL,
            backends,
            rounds: 0,
        },
        &scene::document(backends / POOL, backends),
    );
    let mut document: Value = serde_json::from_str(&text)?;
    let pools = document["pools"].as_object_mut().context("no pools")?;
    for pool in pools.values_mut() {
        // Failures count at once.
        pool["health_check"] = json!({
            "type": "tcp", "interval": format!("{}s", interval.as_secs()), "timeout": "1s",
            "rise": 1, "fall": 1,
        });
    }
    let started = Instant::now();
    let process = agent::start(&lab, &[cpu::first()?, cpu::last()?], document)?;
    retry(PATIENCE, || {
        let opened = opened(process.id())?;
        ensure!(opened >= backends as u64, "{opened} of {backends} checked");
        Ok(())
    })
    .with_context(|| agent::log(&lab).chars().take(2000).collect::<String>())?;
    let first = started.elapsed();
    // Second checks are all over the interval.
    sleep(interval);
    let look = || anyhow::Ok((Instant::now(), time(process.id())?, opened(process.id())?));
    let before = look()?;
    sleep(WATCHED);
    let after = look()?;
    let seconds = (after.0 - before.0).as_secs_f64();
    Ok(Checks {
        backends,
        interval,
        first,
        rate: (after.2 - before.2) as f64 / seconds,
        cpu: Duration::from_nanos(after.1 - before.1).as_secs_f64() / seconds,
        memory: memory::resident(process.id())?,
        failed: backends - healthy(&lab)?,
    })
}

/// Backends that pass their checks.
fn healthy(lab: &Lab) -> Result<usize> {
    let mut stream = UnixStream::connect(lab.directory().join("admin.sock"))?;
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics)?;
    let healthy = |line: &&str| line.starts_with("weir_backend_healthy{") && line.ends_with(" 1");
    Ok(metrics.lines().filter(healthy).count())
}
