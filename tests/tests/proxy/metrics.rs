//! What Prometheus is told.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use weir_tests::certificate::self_signed;

use crate::scene::Scene;

#[test]
fn requests_certificates_and_logs_are_counted() -> Result<()> {
    let log = json!({ "access_log": { "to": "/dev/null" } });
    let scene = Scene::new(1, &log, &json!({}))?;
    let (chain, key) = self_signed(&scene.lab.directory(), "www", "www.test")?;
    let mut service = serde_json::to_value(scene.service()?.config)?;
    service["port"] = json!(443);
    service["tls"] = json!({ "certificates": [{ "chain": chain, "key": key }] });
    scene.agent.change("PUT", "/v1/services/secure", &service)?;
    for status in [200, 200, 404, 500] {
        scene.get(&[&scene.url(&format!("/status/{status}"))])?;
    }
    scene.get(&["--data", "12345", &scene.url("/echo")])?;
    scene.curl(&["--http1.1", "-H", "Content-Length: x", &scene.url("/")])?;
    let web = "{service=\"web\"}";
    let backend = "{pool=\"web\",backend=\"be1\"}";
    for (name, labels, expected) in [
        // One is refused.
        ("requests_total", web, 6),
        ("own_answers_total", web, 1),
        ("malformed_requests_total", web, 1),
        ("connections_total", web, 6),
        ("open_connections", web, 0),
        ("requests_in_flight", web, 0),
        ("request_bytes_total", web, 5),
        ("responses_total", "{service=\"web\",class=\"2xx\"}", 3),
        ("responses_total", "{service=\"web\",class=\"4xx\"}", 2),
        ("responses_total", "{service=\"web\",class=\"5xx\"}", 1),
        ("requests_total", "{service=\"secure\"}", 0),
        ("access_log_dropped_lines_total", web, 0),
        ("backend_requests_total", backend, 5),
        ("backend_connect_failures_total", backend, 0),
        (
            "backend_responses_total",
            "{pool=\"web\",backend=\"be1\",class=\"4xx\"}",
            1,
        ),
    ] {
        lab::retry(weir_tests::agent::PATIENCE, || {
            let value = scene.agent.metric(&format!("weir_http_{name}{labels}"))?;
            ensure!(value == expected, "{name}{labels}: {value}, not {expected}");
            Ok(())
        })?;
    }
    let until = Command::new("openssl")
        .args(["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in"])
        .arg(&chain)
        .output()?;
    let until = String::from_utf8(until.stdout)?;
    let until = until.trim().strip_prefix("notAfter=").context("a date")?;
    let seconds = Command::new("date").args(["+%s", "-d", until]).output()?;
    let seconds: u64 = String::from_utf8(seconds.stdout)?.trim().parse()?;
    let labels = format!(
        "{{service=\"secure\",file=\"{}\",names=\"www.test\"}}",
        chain.display()
    );
    let name = format!("weir_certificate_expiry_timestamp_seconds{labels}");
    let shown = scene.agent.metric(&name)?;
    ensure!(shown == seconds, "{shown}, not {seconds}");
    Ok(())
}
