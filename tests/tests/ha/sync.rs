//! Connections survive the node that they went through: the other knows their flows.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use lab::retry;
use lb_userspace::ha::{Role, sync::Progress};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::{
    agent::{Agent, PATIENCE},
    conversations::Conversations,
};

use crate::{
    scene::{Scene, every, wait_for_role},
    takeover::take_over,
};

/// Where nodes tell each other of flows.
const SYNC_PORT: u16 = 4795;
/// Connections of each family.
const TALKS: u64 = 100;

/// One of two nodes with services of this mode, whose flows another could not work out.
fn start(scene: &Scene, number: usize, mode: &str) -> Result<Agent> {
    let mut document = scene.document(&every(100));
    for service in document["services"].as_object_mut().into_iter().flatten() {
        let (_, service) = service;
        service["mode"] = json!(mode);
        if mode != "full-nat" {
            service["algorithm"] = json!("round-robin");
        }
    }
    if mode == "full-nat" {
        let shared = scene.lab.backends()[0].gateway.both();
        document["agent"]["full_nat"]["addresses"] = json!(shared);
    }
    let key = scene.lab.directory().join("key");
    std::fs::write(&key, "5eed".repeat(16))?;
    document["ha"]["sync"] = json!({
        "listen": at(scene, number), "peers": [at(scene, 1 - number)], "key_file": key,
    });
    Agent::start_at(&scene.lab, scene.balancer(number), &document)
}

fn at(scene: &Scene, number: usize) -> SocketAddr {
    SocketAddr::new(scene.balancer(number).addresses.v4.into(), SYNC_PORT)
}

fn wait_until_synced(agent: &Agent) -> Result<()> {
    retry(PATIENCE, || {
        let peers: BTreeMap<SocketAddr, Progress> = agent.get("/v1/sync")?;
        ensure!(
            peers.values().all(|peer| peer.synced) && !peers.is_empty(),
            "{peers:?}\n{}",
            agent.log()
        );
        Ok(())
    })
}

/// Two hundred connections, of both families, while `fail` ends the node that they go through.
fn survive(mode: &str, fail: impl FnOnce(&Scene, &mut Agent) -> Result<()>) -> Result<()> {
    let scene = Scene::for_mode(mode)?;
    let mut first = start(&scene, 0, mode)?;
    wait_for_role(&first, Role::Active)?;
    let second = start(&scene, 1, mode)?;
    wait_for_role(&second, Role::Backup)?;
    wait_until_synced(&first)?;
    wait_until_synced(&second)?;
    let pause = Duration::from_millis(100);
    let talk = |v4| Conversations::start(scene.lab.client(), scene.vip(v4), TALKS, pause);
    let talks = [talk(true)?, talk(false)?];
    std::thread::sleep(Duration::from_secs(1));
    fail(&scene, &mut first)?;
    wait_for_role(&second, Role::Active)?;
    scene.wait_for_holder(1)?;
    std::thread::sleep(Duration::from_secs(3));
    for talk in talks {
        let report = talk.finish()?;
        println!("{mode}: the longest answer took {:?}", report.longest);
        ensure!(
            report.failures.is_empty(),
            "{:?}\n{}",
            report.failures,
            second.log()
        );
    }
    // Both choose the same, and each says what it is and what it was told.
    let role = r#"weir_ha_role{group="v4",role="active"}"#;
    ensure!(second.metric(role)? == 1);
    ensure!(second.metric(r#"weir_ha_transitions_total{group="v6"}"#)? >= 2);
    let peer = at(&scene, 0);
    let told = format!(r#"weir_sync_records_received_total{{peer="{peer}"}}"#);
    ensure!(
        second.metric(&told)? >= 2 * TALKS,
        "{}",
        second.metric(&told)?
    );
    ensure!(second.metric(&format!(r#"weir_sync_refused_total{{peer="{peer}"}}"#))? == 0);
    if first.process().is_running() {
        let digest = r#"weir_service_digest{service="tcp-v6"}"#;
        ensure!(first.metric(digest)? == second.metric(digest)?);
    }
    // They were no accident: the flows are here. They are counted every few seconds.
    retry(PATIENCE, || {
        let status: Value = second.get("/v1/status")?;
        let kind = if mode == "full-nat" {
            "full_nat"
        } else {
            "tracked"
        };
        ensure!(status["flows"][kind].as_u64() > Some(0), "{status}");
        Ok(())
    })
}

fn hand_over(_: &Scene, first: &mut Agent) -> Result<()> {
    first.change("POST", "/v1/ha/v4/hand-over", &Value::Null)
}

/// No carrier, and nobody there.
fn power_off(scene: &Scene, first: &mut Agent) -> Result<()> {
    scene.switch("link set lb down")?;
    first.process().signal(Signal::SIGKILL)
}

/// Its kernel still has the addresses for a while, and its data path forwards.
fn kill(_: &Scene, first: &mut Agent) -> Result<()> {
    first.process().signal(Signal::SIGKILL)
}

#[test]
fn nat_survives_a_hand_over() -> Result<()> {
    survive("nat", hand_over)
}

#[test]
fn nat_survives_a_death() -> Result<()> {
    survive("nat", power_off)
}

#[test]
fn nat_survives_a_kill() -> Result<()> {
    survive("nat", kill)
}

#[test]
fn full_nat_survives_a_hand_over() -> Result<()> {
    survive("full-nat", hand_over)
}

#[test]
fn full_nat_survives_a_death() -> Result<()> {
    survive("full-nat", power_off)
}

#[test]
fn full_nat_survives_a_kill() -> Result<()> {
    survive("full-nat", kill)
}

#[test]
fn dsr_survives_a_hand_over() -> Result<()> {
    survive("dsr", hand_over)
}

#[test]
fn dsr_survives_a_death() -> Result<()> {
    survive("dsr", power_off)
}

#[test]
fn dsr_survives_a_kill() -> Result<()> {
    survive("dsr", kill)
}

/// A new agent has the flows of the one before it, and tells the other node of them.
#[test]
fn connections_survive_a_takeover_and_then_their_node() -> Result<()> {
    survive("nat", |_, first| {
        take_over(first)?;
        wait_for_role(first, Role::Active)?;
        wait_until_synced(first)?;
        std::thread::sleep(Duration::from_secs(1));
        first.process().signal(Signal::SIGKILL)
    })
}
