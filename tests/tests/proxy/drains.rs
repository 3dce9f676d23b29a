//! Backends, services and the agent itself that are taken out while requests go on.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{
    load::{Load, Work},
    retry,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::agent::PATIENCE;

use crate::scene::Scene;

/// Backends are drained, removed, weighed and added under load: no request fails.
#[test]
fn changes_fail_no_request() -> Result<()> {
    let scene = Scene::new(3, &json!({}), &json!({}))?;
    let work = Work {
        clients: 16,
        per_connection: 50,
        ..Work::endless(scene.target())
    };
    let load = Load::http(scene.lab.client(), work)?;
    let be3 = scene.backend("be3")?.config;
    for round in 0..5 {
        let path = |name: &str, what: &str| format!("/v1/pools/web/backends/{name}{what}");
        let change =
            |method: &str, path: String, body: Value| scene.agent.change(method, &path, &body);
        change("PUT", path("be1", "/drain"), json!({ "deadline": "10s" }))?;
        std::thread::sleep(Duration::from_millis(200));
        change("DELETE", path("be3", ""), Value::Null)?;
        change(
            "PUT",
            path("be2", "/weight"),
            json!({ "weight": 10 + round }),
        )?;
        std::thread::sleep(Duration::from_millis(200));
        change("DELETE", path("be1", "/drain"), Value::Null)?;
        change("PUT", path("be3", ""), serde_json::to_value(&be3)?)?;
    }
    let results = load.stop();
    ensure!(results.failed == 0, "{results:?}");
    ensure!(results.requests > 500, "{results:?}");
    Ok(())
}

/// A drained backend ends what it has, gets nothing new, and is told to be empty.
#[test]
fn drains_end_with_the_last_request() -> Result<()> {
    let scene = Scene::new(2, &json!({ "balance": "round-robin" }), &json!({}))?;
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut command = scene.lab.client().command("curl");
        command
            .args(["--silent", "--fail", &scene.url("/slow/4000")])
            .stdout(std::process::Stdio::piped());
        slow.push(command.spawn()?);
    }
    retry(PATIENCE, || {
        ensure!(scene.served() == 2, "not all have begun");
        Ok(())
    })?;
    let drain = "/v1/pools/web/backends/be1/drain";
    scene
        .agent
        .change("PUT", drain, &json!({ "deadline": "10m" }))?;
    for _ in 0..4 {
        ensure!(scene.get(&[&scene.url("/name")])? == "be2\n");
    }
    for process in slow {
        let output = process.wait_with_output()?;
        ensure!(output.status.success(), "a request was cut");
    }
    retry(Duration::from_secs(40), || {
        let drain = scene.backend("be1")?.drain.context("not drained")?;
        ensure!(drain.status == "drained", "{drain:?}");
        Ok(())
    })
}

/// A service that is removed, or an agent that ends, lets requests end.
#[test]
fn the_end_of_a_service_cuts_no_request() -> Result<()> {
    let scene = Scene::new(1, &json!({}), &json!({}))?;
    let slow = |from: &Scene| {
        let mut command = from.lab.client().command("curl");
        command
            .args(["--silent", "--fail", "--include", &from.url("/slow/3000")])
            .stdout(std::process::Stdio::piped());
        let served = from.served();
        let process = command.spawn()?;
        retry(PATIENCE, || {
            ensure!(from.served() > served, "it has not begun");
            Ok(())
        })?;
        anyhow::Ok(process)
    };
    let service = serde_json::to_value(scene.service()?.config)?;
    let under_way = slow(&scene)?;
    scene
        .agent
        .change("DELETE", "/v1/services/web", &Value::Null)?;
    let refused = scene.curl(&[&scene.url("/name")])?;
    ensure!(!refused.status.success(), "the VIP still answers");
    let output = under_way.wait_with_output()?;
    ensure!(output.status.success(), "a request was cut");
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    ensure!(text.contains("connection: close"), "{text}");

    scene.agent.change("PUT", "/v1/services/web", &service)?;
    let under_way = slow(&scene)?;
    let agent = scene.agent;
    agent.end(Signal::SIGTERM)?;
    let output = under_way.wait_with_output()?;
    ensure!(output.status.success(), "the agent's end cut a request");
    Ok(())
}
