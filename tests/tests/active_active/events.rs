//! Nodes die, come and go.

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;

use crate::{scene::Scene, talks::Talks};

/// Long-lived connections in each mode; IPv4 and IPv6 have half of them each.
const CONNECTIONS: u64 = 300;

/// A node's power fails, it comes back, and another is drained and comes back.
fn disturb(scene: &mut Scene, talks: &mut Talks, meanwhile: &str) -> Result<()> {
    scene.power_off(2)?;
    println!("the router noticed after {:?}", scene.wait_for_ways(2)?);
    talks.look(&format!("a node's power fails{meanwhile}"));
    scene.start(2)?;
    scene.wait_for_ways(3)?;
    talks.look(&format!("a node is added{meanwhile}"));
    scene.ensure_others_landed(2)?;
    scene.drain(1)?;
    scene.wait_for_ways(2)?;
    scene.wait_until_drained(1)?;
    talks.look(&format!("a node is drained{meanwhile}"));
    scene.start(1)?;
    scene.wait_for_ways(3)?;
    talks.look(&format!("it is back{meanwhile}"));
    scene.ensure_others_landed(1)
}

#[test]
fn connections_go_on_wherever_they_land() -> Result<()> {
    let mut scene = Scene::new()?;
    let mut talks = Talks::default();
    talks.open(&scene, CONNECTIONS)?;
    for (number, agent) in scene.agents().enumerate() {
        let services = agent.services()?.into_values();
        let opened: u64 = services.map(|is| is.counters.traffic.connections).sum();
        println!("node {number} was opened {opened} connections");
        ensure!(opened > CONNECTIONS / 2, "the router does not spread them");
    }
    disturb(&mut scene, &mut talks, "")?;

    // One after the other: connections are opened meanwhile, and a node that knew it early dies.
    for node in [0, 2] {
        scene.add_backend(node)?;
        scene.wait_until_used(node)?;
    }
    talks.open(&scene, CONNECTIONS / 3)?;
    scene.add_backend(1)?;
    disturb(&mut scene, &mut talks, " while a backend is added")?;

    // The one with the gateway: its data path goes on, and so does the next agent.
    scene.kill(0)?;
    println!("the router noticed after {:?}", scene.wait_for_ways(2)?);
    talks.look("a node's agent and BIRD are killed");
    scene.start(0)?;
    scene.wait_for_ways(3)?;
    talks.look("they are back");

    let failures = talks.finish()?;
    let logs = || scene.agents().map(Agent::log).collect::<Vec<_>>();
    ensure!(failures.is_empty(), "{failures:#?}\n{}", logs().join("\n"));
    Ok(())
}
