//! A browser.

use anyhow::{Result, ensure};
use serde_json::json;
use weir_tests::certificate::self_signed;

use crate::scene::Scene;

#[test]
fn a_browser_shows_a_page() -> Result<()> {
    let scene = Scene::new(2, &json!({}), &json!({}))?;
    let (chain, key) = self_signed(&scene.lab.directory(), "www", "www.test")?;
    let mut secure = serde_json::to_value(scene.service()?.config)?;
    secure["port"] = json!(443);
    secure["tls"] = json!({ "certificates": [{ "chain": chain, "key": key }] });
    scene.agent.change("PUT", "/v1/services/secure", &secure)?;
    let profile = scene.lab.directory().join("profile");
    let output = scene
        .lab
        .client()
        .command("timeout")
        .args([
            "60",
            "chromium-headless-shell",
            "--no-sandbox",
            "--disable-gpu",
        ])
        // Its own certificate is nobody's business here.
        .args(["--ignore-certificate-errors", "--disable-dev-shm-usage"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--host-resolver-rules=MAP www.test {}", scene.vip))
        .args(["--virtual-time-budget=10000", "--dump-dom"])
        .arg("https://www.test/page")
        .output()?;
    let page = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(page.contains("50 answers by h2<"), "{page}\n{said}");
    // The page and what its script asked for; browsers also ask for an icon.
    ensure!((51..=52).contains(&scene.served()), "{}", scene.served());
    Ok(())
}
