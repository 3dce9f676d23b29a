//! Bodies that are larger than any memory that may be spent on them.

use std::{fs::File, thread};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use weir_tests::memory::{forget_peak, peak, resident};

use crate::scene::Scene;

/// GiB each way. `WEIR_BODY_GIB=10` makes them ten.
const GIB: u64 = 1;
/// Most memory that both ways may cost together.
const MOST: u64 = 16 << 20;

#[test]
fn large_bodies_pass_without_being_kept() -> Result<()> {
    let gib = std::env::var("WEIR_BODY_GIB").map_or(Ok(GIB), |text| text.parse())?;
    let mut scene = Scene::new(1, &json!({}), &json!({}))?;
    let agent = scene.agent.process().id();
    let file = scene.lab.directory().join("large");
    // A hole: no disk is needed.
    File::create(&file)?.set_len(gib << 30)?;
    let file = file.to_str().context("a path in UTF-8")?;
    // What comes with the first bodies is not counted.
    scene.get(&["-o", "/dev/null", &scene.url("/stream/64")])?;
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let get = |more: &[&str]| scene.get(&[&[version, "--max-time", "600"], more].concat());
        let before = resident(agent)?;
        forget_peak(agent)?;
        let (up, down) = (
            scene.url("/swallow"),
            scene.url(&format!("/stream/{}", gib << 10)),
        );
        let (sent, came) = thread::scope(|scope| {
            let sent = scope.spawn(|| get(&["-T", file, &up]));
            let came = get(&["-o", "/dev/null", "-w", "%{size_download}", &down]);
            (sent.join(), came)
        });
        let sent = sent.ok().context("it panicked")??;
        let grown = peak(agent)?.saturating_sub(before);
        println!("{version}: {grown} bytes of memory for {gib} GiB up and down");
        ensure!(
            sent.trim() == (gib << 30).to_string(),
            "{version}: {sent} bytes went up"
        );
        ensure!(
            came? == (gib << 30).to_string(),
            "{version}: not all came down"
        );
        ensure!(grown < MOST, "{version}: {grown} bytes of memory");
    }
    Ok(())
}
