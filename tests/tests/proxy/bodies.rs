//! Bodies that are larger than any memory that may be spent on them, and that have no end.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use weir_tests::{
    agent::PATIENCE,
    memory::{forget_peak, peak, resident},
};

use crate::{
    http2::{DATA, END_HEADERS, HEADERS, POST, PREFACE, RST_STREAM, SETTINGS, frame},
    scene::Scene,
};

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

/// A stream that its client resets has no end, whichever reason it gives (RFC 9113, section 8.1):
/// with NO_ERROR servers say that they need no more of a request.
#[test]
fn an_upload_that_its_client_resets_is_no_whole_one() -> Result<()> {
    let scene = Scene::new(1, &json!({}), &json!({}))?;
    let listener = scene.listen_as("be1", 8081)?;
    for reason in [0u32, 8] {
        let mut client = scene.connect()?;
        let asks = [
            PREFACE,
            &frame(SETTINGS, 0, 0, &[]),
            &frame(HEADERS, END_HEADERS, 1, POST),
            &frame(DATA, 0, 1, b"a part"),
        ];
        client.write_all(&asks.concat())?;
        let (mut server, _) = listener.accept()?;
        server.set_read_timeout(Some(PATIENCE))?;
        let (mut came, mut bytes) = (String::new(), [0; 4096]);
        while !came.contains("a part") {
            let count = server.read(&mut bytes)?;
            ensure!(count > 0, "the backend's connection was closed: {came}");
            came += std::str::from_utf8(&bytes[..count])?;
        }
        client.write_all(&frame(RST_STREAM, 0, 1, &reason.to_be_bytes()))?;
        // An error, or the end, where it was not whole.
        let _ = server.read_to_string(&mut came);
        ensure!(came.ends_with("a part\r\n"), "{reason}: {came}");
    }
    Ok(())
}
