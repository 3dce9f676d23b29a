//! Requests and answers, by every version of HTTP.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::scene::Scene;

#[test]
fn serves_http_1_and_2_on_both_sides() -> Result<()> {
    let scene = Scene::new(2, &json!({ "balance": "round-robin" }), &json!({}))?;
    for version in ["--http1.1", "--http1.0", "--http2-prior-knowledge"] {
        let names = (0..4).map(|_| scene.get(&[version, &scene.url("/name")]));
        let names = names.collect::<Result<BTreeSet<_>>>()?;
        ensure!(names.len() == 2, "{version}: {names:?}");
        let head = scene.get(&[version, &scene.url("/head?q=1")])?;
        ensure!(head.starts_with("GET /head?q=1 HTTP/1.1"), "{head}");
        ensure!(head.contains(&format!("host: {}\n", scene.vip)), "{head}");
        let body = "x".repeat(100_000);
        std::fs::write(scene.lab.directory().join("body"), &body)?;
        let file = format!("@{}", scene.lab.directory().join("body").display());
        let echoed = scene.get(&[version, "--data-binary", &file, &scene.url("/echo")])?;
        ensure!(
            echoed == body,
            "{version}: {} bytes came back",
            echoed.len()
        );
        let chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", &file];
        if version == "--http1.1" {
            let echoed = scene.get(&[&[version][..], &chunked, &[&scene.url("/echo")]].concat())?;
            ensure!(
                echoed == body,
                "{version}: {} bytes came back",
                echoed.len()
            );
        }
        let head = scene.get(&[version, "--head", &scene.url("/bytes/5000")])?;
        ensure!(
            head.to_lowercase().contains("content-length: 5000"),
            "{head}"
        );
    }
    let http = scene.service()?.http.unwrap_or_default();
    ensure!(
        http.responses_2xx >= 18 && http.requests == http.responses_2xx,
        "{http:?}"
    );
    ensure!(http.requests_in_flight == 0, "{http:?}");
    let backends = [scene.backend("be1")?, scene.backend("be2")?];
    let requests = backends.iter().map(|b| b.http.unwrap_or_default().requests);
    ensure!(requests.sum::<u64>() == scene.served(), "{backends:?}");
    ensure!(http.requests == scene.served(), "{http:?}");
    Ok(())
}
