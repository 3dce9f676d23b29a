//! Who is better: priorities, what lowers them, and when the better one takes over.

use std::{
    fs,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use lab::retry;
use lb_userspace::ha::Role;
use serde_json::{Value, json};
use weir_tests::agent::{Agent, PATIENCE};

use crate::{
    capture::{Capture, pause},
    scene::{Scene, every, groups, wait_for_role},
};

fn with(settings: &Value) -> Value {
    let mut group = every(100);
    for (key, value) in settings.as_object().into_iter().flatten() {
        group[key] = value.clone();
    }
    group
}

fn wait_for_priority(agent: &Agent, priority: u8) -> Result<()> {
    retry(PATIENCE, || {
        let groups = groups(agent)?;
        let all = groups.values().map(|group| group.priority);
        let all: Vec<_> = all.collect();
        ensure!(all.iter().all(|is| *is == priority), "{all:?}");
        Ok(())
    })
}

/// From now on one of the two speaks for the addresses, and the other does not.
fn only(scene: &Scene, capture: &Capture, number: usize) -> Result<()> {
    scene.wait_for_holder(number)?;
    let vips: Vec<IpAddr> = [scene.shared(true), scene.shared(false)].concat();
    let since = std::time::Instant::now();
    while since.elapsed() < Duration::from_secs(1) {
        pause();
    }
    let other = &scene.balancer(1 - number).name;
    let claimants = capture.claimants(&vips, since);
    ensure!(!claimants.contains(other), "{claimants:?}");
    Ok(())
}

/// An interface that goes down, and a command that fails, each lower the priority; the addresses
/// go to who is better then, also without preemption, and stay there when all is well again.
#[test]
fn what_is_tracked_moves_the_addresses() -> Result<()> {
    let scene = Scene::new()?;
    let capture = Capture::start(&scene.lab)?;
    let ip = |arguments: &str| -> Result<()> {
        let mut ip = scene.balancer(0).namespace.command("ip");
        let status = ip.args(arguments.split(' ')).status()?;
        ensure!(status.success(), "ip {arguments}");
        Ok(())
    };
    ip("link add uplink type veth peer name uplink2")?;
    ip("link set uplink2 up")?;
    ip("link set uplink up")?;
    let file = scene.lab.directory().join("well");
    fs::write(&file, "")?;
    let mut document = scene.document(&with(&json!({ "priority": 150 })));
    // What one tracks counts for both, as they fail over together.
    document["ha"]["groups"]["v4"]["track"] = json!({
        "uplink": { "type": "interface", "interface": "uplink", "lower_by": 60 },
        "file": {
            "type": "command", "command": ["test", "-e", file], "lower_by": 20,
            "interval": "100ms",
        },
    });
    let first = Agent::start_at(&scene.lab, scene.balancer(0), &document)?;
    let second = scene.start(1, &every(100))?;
    wait_for_role(&first, Role::Active)?;
    wait_for_priority(&first, 150)?;
    scene.wait_for_holder(0)?;

    fs::remove_file(&file)?;
    wait_for_priority(&first, 130)?;
    only(&scene, &capture, 0)?;
    ip("link set uplink down")?;
    wait_for_priority(&first, 70)?;
    wait_for_role(&second, Role::Active)?;
    wait_for_role(&first, Role::Backup)?;
    only(&scene, &capture, 1)?;
    let tracked = &groups(&first)?["v4"].track["uplink"];
    ensure!(
        !tracked.passes && tracked.reason.contains("down"),
        "{tracked:?}"
    );
    ensure!(first.metric(r#"weir_ha_track_passes{group="v4",track="uplink"}"#)? == 0);
    ensure!(first.metric(r#"weir_ha_priority{group="v6"}"#)? == 70);

    ip("link set uplink up")?;
    fs::write(&file, "")?;
    wait_for_priority(&first, 150)?;
    only(&scene, &capture, 1)
}

/// A service lowers the priority when all its backends have failed, not while they have not been
/// checked yet: as with keepalived, where `alpha` is off.
#[test]
fn a_tracked_service_fails_when_its_backends_have() -> Result<()> {
    let scene = Scene::new()?;
    // SYNs get nowhere, and nobody says so: until the time-out nothing is known.
    for backend in scene.lab.backends() {
        let address = backend.addresses.v4;
        let nowhere = format!("neigh add {address} lladdr 02:00:00:00:00:99 dev lan\n");
        scene.balancer(0).namespace.ip(&nowhere)?;
    }
    let mut document = scene.document(&with(&json!({ "priority": 150 })));
    document["pools"]["v4"]["health_check"] = json!({ "type": "tcp", "timeout": "8s" });
    document["ha"]["groups"]["v4"]["track"] = json!({
        "served": { "type": "service", "service": "tcp-v4", "lower_by": 60 },
    });
    let agent = Agent::start_at(&scene.lab, scene.balancer(0), &document)?;
    wait_for_role(&agent, Role::Active)?;
    wait_for_priority(&agent, 150)?;
    for (name, backend) in &agent.pools()?["v4"].backends {
        ensure!(backend.health.status == "unknown", "{name}: {backend:?}");
    }
    wait_for_priority(&agent, 90)?;
    let tracked = &groups(&agent)?["v4"].track["served"];
    ensure!(
        !tracked.passes && tracked.reason.contains("no healthy backend"),
        "{tracked:?}"
    );
    Ok(())
}

/// The better one leaves an active one alone for the delay, and takes over after it.
#[test]
fn preemption_waits_for_its_delay() -> Result<()> {
    let scene = Scene::new()?;
    let capture = Capture::start(&scene.lab)?;
    let second = scene.start(1, &every(100))?;
    wait_for_role(&second, Role::Active)?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let better = json!({ "priority": 150, "preempt": true, "preempt_delay": "3s" });
    let first = scene.start(0, &with(&better))?;
    wait_for_role(&first, Role::Backup)?;
    wait_for_role(&first, Role::Active)?;
    let group = &groups(&first)?["v4"];
    let waited = group.since - started.as_secs_f64();
    println!("it took over {waited:.3} s after its start, by a delay of 3 s");
    ensure!(waited >= 3.0, "{group:#?}");
    wait_for_role(&second, Role::Backup)?;
    only(&scene, &capture, 0)
}

/// Who owns the addresses takes them at its start, though it was not told to preempt.
#[test]
fn an_owner_takes_what_is_its_own() -> Result<()> {
    let scene = Scene::new()?;
    let capture = Capture::start(&scene.lab)?;
    let second = scene.start(1, &with(&json!({ "priority": 254, "preempt": true })))?;
    wait_for_role(&second, Role::Active)?;
    let first = scene.start(0, &with(&json!({ "priority": 255 })))?;
    wait_for_role(&first, Role::Active)?;
    wait_for_role(&second, Role::Backup)?;
    only(&scene, &capture, 0)
}
