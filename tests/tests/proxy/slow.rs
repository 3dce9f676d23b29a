//! Clients that take their time (slowhttptest): they are given up, and nobody else notices.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::retry;
use serde_json::json;
use weir_tests::{
    agent::PATIENCE,
    memory::{forget_peak, peak, resident},
};

use crate::scene::Scene;

/// Connections of each attack.
const CONNECTIONS: u64 = 300;
/// What a connection of an attack may cost while it lasts.
const EACH: u64 = 300 * 1024;

#[test]
fn slow_headers_bodies_and_readers_are_given_up() -> Result<()> {
    let timeouts = json!({ "header": "3s", "body": "3s", "idle": "3s", "keepalive": "5s" });
    let mut scene = Scene::new(1, &json!({ "timeouts": timeouts }), &json!({}))?;
    let agent = scene.agent.process().id();
    let load = scene.honest(8)?;
    let (before, count) = (resident(agent)?, CONNECTIONS.to_string());
    forget_peak(agent)?;
    let attack = |options: &[&str], path: &str| -> Result<std::process::Child> {
        let mut command = scene.lab.client().command("slowhttptest");
        command.args(options);
        // Something of each connection every 2 s, for as long as 6 s.
        command.args(["-c", &count, "-r", "150", "-i", "2", "-l", "6", "-p", "3"]);
        command
            .args(["-u", &scene.url(path)])
            .current_dir(scene.lab.directory());
        Ok(command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?)
    };
    let attacks = [
        attack(&["-H"], "/name")?,
        attack(&["-B", "-s", "8192"], "/echo")?,
        // Of a window of up to 64 bytes, 5 at a time.
        attack(
            &["-X", "-w", "8", "-y", "64", "-n", "2", "-z", "5"],
            "/bytes/5000000",
        )?,
    ];
    let mut most = 0;
    for attack in attacks {
        while most < 2 * CONNECTIONS {
            let http = scene.service()?.http.context("no counters")?;
            most = most.max(http.open_connections);
            std::thread::sleep(Duration::from_millis(100));
        }
        let output = attack.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "slowhttptest: {said}");
    }
    println!("{most} connections at a time");
    // They are gone, while the load stays.
    retry(PATIENCE, || {
        let http = scene.service()?.http.context("no counters")?;
        ensure!(http.open_connections <= 8, "{http:?}");
        Ok(())
    })?;
    let grown = peak(agent)?.saturating_sub(before);
    println!("{} bytes more for each", grown / (3 * CONNECTIONS));
    ensure!(grown < 3 * CONNECTIONS * EACH, "{grown} bytes");
    let results = load.stop();
    println!("{results:?}");
    ensure!(
        results.failed == 0 && results.requests > 1000,
        "{results:?}"
    );
    Ok(())
}
