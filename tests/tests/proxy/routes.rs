//! Routes, and what backends are told.

use anyhow::{Result, ensure};
use lab::retry;
use serde_json::json;
use weir_tests::agent::PATIENCE;

use crate::scene::{Scene, WEB};

#[test]
fn routes_rewrites_redirects_and_answers() -> Result<()> {
    let http = json!({ "routes": {
        "old": { "path_prefix": "/old", "redirect": { "path_prefix": "/new" } },
        "fixed": { "path": "/fixed", "respond": { "status": 418, "body": "short\n" } },
        "api": {
            "path_prefix": "/api", "hosts": ["*.example.org"],
            "rewrite": { "path_prefix": "/", "host": "inner.test" },
            "request_headers": {
                "set": {
                    "x-way": "api", "x-forwarded-prefix": "/api", "x-forwarded-proto": "https",
                },
                "remove": ["accept"],
            },
            "response_headers": { "set": { "x-served": "yes" } },
        },
    } });
    let scene = Scene::new(1, &http, &json!({}))?;
    let to = |path: &str| scene.url(path);
    let answer = scene.get(&["--include", &to("/old/x?y=1")])?;
    ensure!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    let location = format!("location: http://{}/new/x?y=1", scene.vip);
    ensure!(answer.contains(&location), "{answer}");
    let answer = scene.get(&["--include", &to("/fixed")])?;
    ensure!(
        answer.starts_with("HTTP/1.1 418 ") && answer.ends_with("short\n"),
        "{answer}"
    );
    let api = ["--include", "-H", "Host: a.example.org", &to("/api/head")];
    let answer = scene.get(&api)?;
    ensure!(answer.contains("GET /head HTTP/1.1"), "{answer}");
    for line in [
        "host: inner.test",
        "x-way: api",
        "x-served: yes",
        "x-forwarded-host: a.example.org",
        "x-forwarded-prefix: /api",
        "x-forwarded-proto: https",
    ] {
        ensure!(answer.contains(line), "no {line:?}: {answer}");
    }
    ensure!(!answer.contains("accept:"), "{answer}");
    // Another host has no such route.
    let answer = scene.get(&["--include", &to("/api/head")])?;
    ensure!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    Ok(())
}

#[test]
fn says_who_the_client_is_and_believes_nobody() -> Result<()> {
    let scene = Scene::new(1, &json!({ "via": "weir" }), &json!({}))?;
    let client = scene.lab.client_addresses().v4;
    let lies = [
        "-H",
        "X-Forwarded-For: 192.0.2.1",
        "-H",
        "X-Real-IP: 192.0.2.1",
    ];
    let answer = scene.get(&[&lies[..], &["--include", &scene.url("/head")]].concat())?;
    for line in [
        format!("x-forwarded-for: {client}\n"),
        "x-forwarded-proto: http\n".to_owned(),
        format!("x-forwarded-host: {}\n", scene.vip),
        // To the backend, which shows what it has got, and to the client.
        "via: 1.1 weir\n".to_owned(),
        "via: 1.1 weir\r\n".to_owned(),
    ] {
        ensure!(answer.contains(&line), "no {line:?}: {answer}");
    }
    ensure!(!answer.contains("192.0.2.1"), "{answer}");
    // The same id for the backend and the client.
    ensure!(answer.matches("x-request-id: ").count() == 2, "{answer}");
    let id = answer.split("x-request-id: ").nth(1).unwrap_or_default();
    let id = id.lines().next().unwrap_or_default().trim();
    ensure!(
        answer.matches(id).count() == 2 && id.len() == 32,
        "{id}: {answer}"
    );
    Ok(())
}

/// Copies go to another pool, bodies and all, and the client hears nothing of it.
#[test]
fn mirrors_requests() -> Result<()> {
    let scene = Scene::new(2, &json!({}), &json!({}))?;
    let backends = scene.lab.backends();
    let pool = |place: usize| {
        let address = format!("{}:{WEB}", backends[place].addresses.v4);
        json!({ "backends": { "one": { "address": address } } })
    };
    scene.agent.change("PUT", "/v1/pools/copies", &pool(1))?;
    scene.agent.change("PUT", "/v1/pools/web", &pool(0))?;
    let mut service = serde_json::to_value(scene.service()?.config)?;
    service["http"] = json!({ "routes": { "all": {
        "path_prefix": "/", "mirror": { "pool": "copies" },
    } } });
    scene.agent.change("PUT", "/v1/services/web", &service)?;
    for _ in 0..5 {
        ensure!(scene.get(&[&scene.url("/name")])? == "be1\n");
        ensure!(scene.get(&["--data", "text", &scene.url("/echo")])? == "text");
    }
    retry(PATIENCE, || {
        let served = [scene.webs[0].requests(), scene.webs[1].requests()];
        ensure!(served == [10, 10], "{served:?}");
        Ok(())
    })
}
