//! Backends that fail, and what clients notice of it.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::retry;
use serde_json::json;
use weir_tests::agent::PATIENCE;

use crate::scene::Scene;

/// A server that closes each connection behind the first answer, without saying so: whoever asks
/// again on it has lost a race.
struct Fickle {
    requests: Arc<AtomicU64>,
}

impl Fickle {
    fn start(listener: TcpListener) -> Fickle {
        let requests = Arc::new(AtomicU64::new(0));
        let counted = requests.clone();
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = counted.clone();
                thread::spawn(move || {
                    let mut stream = stream;
                    let mut bytes = [0; 4096];
                    for answer in [true, false] {
                        match stream.read(&mut bytes) {
                            Ok(count) if count > 0 => {}
                            _ => return,
                        }
                        counted.fetch_add(1, Ordering::Relaxed);
                        if answer {
                            let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                            let _ = stream.write_all(text.as_bytes());
                        }
                    }
                });
            }
        });
        Fickle { requests }
    }
}

#[test]
fn asks_again_where_an_old_connection_closed() -> Result<()> {
    let scene = Scene::new(1, &json!({}), &json!({}))?;
    let fickle = Fickle::start(scene.listen_as("be1", 8081)?);
    let url = scene.url("/");
    for _ in 0..5 {
        ensure!(scene.get(&[&url])? == "ok");
    }
    // Something that may not be done twice is not, once it was sent.
    let post = ["--data", "x", "-o", "/dev/null", "-w", "%{http_code}", &url];
    let statuses = [scene.get(&post)?, scene.get(&post)?, scene.get(&post)?];
    ensure!(
        statuses.iter().any(|status| status == "502"),
        "{statuses:?}"
    );
    let http = scene.service()?.http.unwrap_or_default();
    ensure!(http.retries > 0, "{http:?}");
    let seen = fickle.requests.load(Ordering::Relaxed);
    ensure!(seen <= 8 + http.retries, "{seen} requests, {http:?}");
    Ok(())
}

#[test]
fn passes_over_those_that_refuse_connections() -> Result<()> {
    let mut scene = Scene::new(3, &json!({ "balance": "round-robin" }), &json!({}))?;
    scene.webs.remove(0);
    for _ in 0..20 {
        scene.get(&["--fail", &scene.url("/name")])?;
        scene.get(&["--fail", "--data", "x", &scene.url("/echo")])?;
    }
    let be1 = scene.backend("be1")?.http.unwrap_or_default();
    ensure!(be1.connect_failures >= 5 && be1.ejections == 1, "{be1:?}");
    // Left out, it is not asked any more.
    ensure!(be1.connect_failures <= 6, "{be1:?}");
    Ok(())
}

#[test]
fn leaves_out_those_that_err_but_never_too_many() -> Result<()> {
    let outliers = json!({ "http": { "outliers": { "errors": 3, "rest": "1s" } } });
    let scene = Scene::new(2, &json!({ "balance": "round-robin" }), &outliers)?;
    for _ in 0..20 {
        let status = [
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &scene.url("/status/500"),
        ];
        ensure!(scene.get(&status)? == "500");
    }
    let backends = [scene.backend("be1")?, scene.backend("be2")?];
    let ejected = backends.map(|backend| backend.http.unwrap_or_default().ejections);
    ensure!(ejected.iter().sum::<u64>() == 1, "{ejected:?}");
    // It comes back.
    retry(PATIENCE, || {
        let first = scene.get(&[&scene.url("/name")])?;
        let second = scene.get(&[&scene.url("/name")])?;
        ensure!(first != second, "{first}");
        Ok(())
    })
}

#[test]
fn gives_up_in_time() -> Result<()> {
    let http = json!({
        "timeouts": { "response": "1s", "idle": "1s", "connect": "500ms" },
    });
    let scene = Scene::new(1, &http, &json!({}))?;
    let status = |path: &str| {
        let begun = Instant::now();
        let status = scene.get(&["-o", "/dev/null", "-w", "%{http_code}", &scene.url(path)])?;
        anyhow::Ok((status, begun.elapsed()))
    };
    let (slow, took) = status("/slow/60000")?;
    ensure!(
        slow == "504" && took < Duration::from_secs(10),
        "{slow} after {took:?}"
    );
    let (fast, _) = status("/slow/200")?;
    ensure!(fast == "200", "{fast}");
    // An answer that stands still, and one that breaks off, end visibly too early.
    for (path, why) in [("/stall", "stalled"), ("/broken", "broken")] {
        let output = scene.curl(&[&scene.url(path)])?;
        ensure!(!output.status.success(), "the {why} answer looks whole");
    }
    // An address where nobody answers.
    let path = "/v1/pools/web/backends/be1";
    scene
        .agent
        .change("PUT", path, &json!({ "address": "198.51.100.1:80" }))?;
    let (dead, took) = status("/name")?;
    ensure!(dead == "502" || dead == "504", "{dead} after {took:?}");
    Ok(())
}

#[test]
fn says_so_when_nobody_is_left() -> Result<()> {
    let http = json!({ "unavailable": {
        "status": 503, "body": "Back soon.\n", "retry_after": "7s",
    } });
    let scene = Scene::new(1, &http, &json!({}))?;
    let path = "/v1/pools/web/backends/be1";
    scene
        .agent
        .change("PUT", &format!("{path}/weight"), &json!({ "weight": 0 }))?;
    let answer = scene.get(&["--include", &scene.url("/name")])?;
    ensure!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    ensure!(answer.to_lowercase().contains("retry-after: 7"), "{answer}");
    ensure!(answer.ends_with("Back soon.\n"), "{answer}");
    ensure!(scene.served() == 0);
    Ok(())
}

#[test]
fn breaks_the_circuit() -> Result<()> {
    let breaker = json!({ "http": { "circuit_breaker": { "requests": 2 } } });
    let scene = Scene::new(1, &json!({}), &breaker)?;
    let slow = (0..2).map(|_| {
        let mut command = scene.lab.client().command("curl");
        command.args(["--silent", &scene.url("/slow/3000")]);
        lab::Process::spawn(command)
    });
    let slow = slow.collect::<Result<Vec<_>>>()?;
    retry(PATIENCE, || {
        let http = scene.service()?.http.context("no counters")?;
        ensure!(http.requests_in_flight == 2, "{http:?}");
        Ok(())
    })?;
    let answer = scene.get(&["--include", &scene.url("/name")])?;
    ensure!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drop(slow);
    // Those that left make room, and no others were asked in their place.
    retry(PATIENCE, || {
        scene.get(&["--fail", &scene.url("/name")]).map(drop)
    })?;
    Ok(())
}

/// A backend that stands still costs the clients of a hedged service next to nothing.
#[test]
fn asks_another_when_one_is_slow() -> Result<()> {
    let http = json!({
        "balance": "round-robin", "retries": { "hedge_after": "100ms" },
        "timeouts": { "response": "30s" },
    });
    let mut scene = Scene::new(1, &http, &json!({}))?;
    // One that accepts connections and never says a word.
    let mute = scene.listen_as("mute", 8082)?;
    let begun = Instant::now();
    for _ in 0..6 {
        ensure!(scene.get(&[&scene.url("/name")])? == "be1\n");
    }
    ensure!(
        begun.elapsed() < Duration::from_secs(25),
        "{:?}",
        begun.elapsed()
    );
    let http = scene.service()?.http.unwrap_or_default();
    ensure!(http.retries >= 2, "{http:?}");
    drop(mute);
    drop(scene.webs.pop());
    Ok(())
}
