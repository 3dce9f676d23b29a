//! Every version of HTTP on one side with every version on the other.

use anyhow::{Result, ensure};
use serde_json::json;
use weir_tests::certificate::self_signed;

use crate::scene::{Scene, WEB, members};

const LENGTH: usize = 300_000;

#[test]
fn every_version_is_carried_by_every_other() -> Result<()> {
    let own = json!({ "path": "/own", "respond": { "status": 410, "body": "gone\n" } });
    let scene = Scene::new(2, &json!({ "routes": { "own": own } }), &json!({}))?;
    let (chain, key) = self_signed(&scene.lab.directory(), "www", "www.test")?;
    let mut secure = serde_json::to_value(scene.service()?.config)?;
    secure["port"] = json!(443);
    secure["tls"] = json!({ "certificates": [{ "chain": chain, "key": key }] });
    scene.agent.change("PUT", "/v1/services/secure", &secure)?;
    let body = scene.lab.directory().join("body");
    std::fs::write(&body, "x".repeat(LENGTH))?;
    let (body, chain) = (format!("@{}", body.display()), chain.display().to_string());
    let resolve = format!("www.test:443:{}", scene.vip);
    let address = scene.lab.client_addresses().v4;
    let plain = format!("http://{}", scene.target());
    let secure = "https://www.test".to_owned();
    let clients = [
        // Answered in the version that Weir has, as RFC 9110, section 6.2, wants it.
        (&plain, "--http1.0", "1.1"),
        (&plain, "--http1.1", "1.1"),
        (&plain, "--http2-prior-knowledge", "2"),
        (&secure, "--http1.1", "1.1"),
        (&secure, "--http2", "2"),
    ];
    for backend in ["1.1", "2"] {
        let pool = json!({ "http": { "version": backend }, "backends": members(&scene.lab, WEB) });
        scene.agent.change("PUT", "/v1/pools/web", &pool)?;
        for (site, option, client) in clients {
            let what = format!("{site} {option} to {backend}");
            let fixed = [option, "--resolve", &resolve, "--cacert", &chain];
            let get = |more: &[&str]| scene.get(&[&fixed[..], more].concat());
            let versions = get(&["-w", "%{http_version}", &format!("{site}/head")])?;
            let expected = match backend {
                "2" => " HTTP/2.0 from",
                _ => " HTTP/1.1 from",
            };
            ensure!(
                versions.contains(expected) && versions.ends_with(&format!("\n{client}")),
                "{what}: {versions}"
            );
            for line in [
                &format!("x-forwarded-for: {address}\n"),
                "x-forwarded-port: ",
            ] {
                ensure!(versions.contains(line), "{what}: no {line:?} in {versions}");
            }
            // A length, and where the version has it, none.
            let echo = format!("{site}/echo");
            let unknown = [
                "-H",
                "Transfer-Encoding: chunked",
                "--data-binary",
                &body,
                &echo,
            ];
            let ways = match option {
                "--http1.1" => &[&unknown[..], &unknown[2..]][..],
                _ => &[&unknown[2..]][..],
            };
            for way in ways {
                let echoed = get(way)?;
                ensure!(echoed.len() == LENGTH, "{what}: {} bytes", echoed.len());
            }
            let head = get(&["--head", &format!("{site}/bytes/5000")])?;
            let length = head.to_lowercase().contains("content-length: 5000");
            ensure!(length, "{what}: {head}");
            // Weir's own answer has no body either.
            let own = get(&["--head", &format!("{site}/own")])?.to_lowercase();
            ensure!(
                own.contains(" 410") && own.contains("content-length: 5"),
                "{what}: {own}"
            );
        }
    }
    let http = scene.service()?.http.unwrap_or_default();
    ensure!(http.responses_5xx == 0, "{http:?}");
    Ok(())
}
