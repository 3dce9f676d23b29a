//! A flood of SYNs, each from another source, beside a thousand connections.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use frames::{End, Generator, Sources, Template, mac};
use lab::retry;
use serde_json::{Value, json};
use weir_tests::{
    agent::PATIENCE,
    held::Held,
    scene::{ECHO, Scene, Setup},
};

const FLOOD: u32 = 1_000_000;
/// Room for flows: far less than the flood would need.
const ROOM: u64 = 65_536;

/// The flood, from the client's NIC.
fn generator(scene: &Scene) -> Result<Generator> {
    let client = scene.lab.client();
    let device = &scene.lab.lb_devices()[0];
    let source = End {
        mac: mac(client, "eth0")?,
        // A thousand addresses and ports; nobody's, and what comes back goes nowhere.
        address: SocketAddr::new([10, 9, 0, 1].into(), 1024),
    };
    let destination = End {
        mac: mac(scene.lab.lb(), device)?,
        address: scene.target(ECHO),
    };
    let sources = Sources {
        addresses: 1024,
        ports: 1024,
    };
    Generator::new(client, "eth0", Template::syn(source, destination)?, sources)
}

fn scene() -> Result<(Scene, Held)> {
    let scene = Scene::with_agent(&Setup::default(), &json!({ "limits": { "flows": ROOM } }))?;
    // Answers to the flood are dropped, instead of going back and forth.
    let mut command = scene.lab.lb().command("ip");
    let status = command
        .args(["route", "add", "blackhole", "10.9.0.0/16"])
        .status()?;
    ensure!(status.success(), "ip route: {status}");
    let held = scene.hold(1000)?;
    Ok((scene, held))
}

/// Waits for a look of the agent's at its tables that began after now.
fn looked(scene: &Scene) -> Result<lb_userspace::dataplane::FlowCounters> {
    std::thread::sleep(std::time::Duration::from_secs(12));
    Ok(scene.agent.status()?.flows)
}

/// Sends SYNs until [`FLOOD`] of them have come to Weir: the link loses those for which its ring has
/// no room, and how many these are is the machine's affair.
fn flood(scene: &Scene) -> Result<()> {
    let mut generator = generator(scene)?;
    let opened =
        || -> Result<u64> { Ok(scene.agent.services()?["echo"].counters.traffic.connections) };
    let before = opened()?;
    retry(PATIENCE, || {
        generator.send(FLOOD / 4)?;
        let (arrived, sent) = (opened()? - before, generator.sent()?);
        ensure!(arrived >= u64::from(FLOOD), "{arrived} of {sent} arrived");
        println!("{arrived} SYNs of {sent}");
        Ok(())
    })
}

/// On a stable table a million SYNs are remembered by nobody and evict nobody, and nobody is
/// reset.
#[test]
fn a_flood_on_a_stable_table_costs_no_memory() -> Result<()> {
    let (scene, mut held) = scene()?;
    flood(&scene)?;
    held.all_say()?;
    let flows = looked(&scene)?;
    assert_eq!((flows.tracked, flows.remembered, flows.evicted), (0, 0, 0));
    held.all_say()
}

/// While slots are tracked, a flood fills the table, which is told of; connections of slots
/// that no change has touched go on.
#[test]
fn a_flood_during_a_change_harms_no_untouched_slot() -> Result<()> {
    let (scene, mut held) = scene()?;
    scene.change(&["echo"], "PUT", "be1", "/drain", &Value::Null)?;
    let slots = &scene.agent.services()?["echo"].counters;
    ensure!((1..slots.slots).contains(&slots.tracked_slots), "{slots:?}");
    // Of slots that stayed: they were never at be1.
    let mut untouched = Held::default();
    for connection in std::mem::take(&mut held.0) {
        if connection.partner != "be1" {
            untouched.0.push(connection);
        }
    }
    ensure!(untouched.0.len() > 500, "{}", untouched.0.len());
    flood(&scene)?;
    untouched.all_say()?;
    retry(PATIENCE, || {
        let evicted = scene.agent.metric("weir_flows_evicted_total")?;
        ensure!(evicted > ROOM, "{evicted} were evicted");
        Ok(())
    })?;
    assert_eq!(scene.agent.metric("weir_flows_limit")?, ROOM);
    let flows = scene.agent.status()?.flows;
    println!("{flows:?}");
    untouched.all_say()
}
