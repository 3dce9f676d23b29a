//! An etcd that has members that die, compacts, and is silent.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Result, ensure};
use lab::retry;
use lb_userspace::events::{EventView, Kind};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::agent::{Agent, PATIENCE};

use crate::scene::{Scene, digests, view, wait, wait_until_same};

/// Sets a weight over a node's API, which may have to look for another member of etcd first.
fn set_weight(agent: &Agent, weight: usize) -> Result<()> {
    let path = "/v1/pools/echo/backends/be3/weight";
    let body = json!({ "weight": weight });
    retry(PATIENCE, || agent.change("PUT", path, &body))
}

fn weight(agent: &Agent) -> Result<u16> {
    Ok(agent.pools()?["echo"].backends["be3"].config.weight)
}

/// Whichever member it is, and whoever speaks with it.
#[test]
fn a_member_that_dies_is_no_loss() -> Result<()> {
    let mut scene = Scene::of_cluster()?;
    retry(PATIENCE, || scene.seed())?;
    // Longer than an election takes on a busy machine.
    let local = json!({ "ha": { "health": { "lease": "30s" } } });
    let agents = [scene.start_with(0, &local)?, scene.start_with(1, &local)?];
    let both = [&agents[0], &agents[1]];
    let mut before = wait_until_same(&both, &BTreeMap::new())?;
    for agent in both {
        wait(agent, |view| {
            view.health
                .as_ref()
                .is_some_and(|is| is.agreed && is.nodes.len() == 2)
        })?;
    }
    for dies in 0..3 {
        match dies {
            0 => scene.etcd.stop()?,
            member => scene.members[member - 1].stop()?,
        }
        for (number, agent) in both.into_iter().enumerate() {
            set_weight(agent, 10 + 2 * dies + number)?;
            before = wait_until_same(&both, &before)?;
        }
        match dies {
            0 => scene.etcd.start()?,
            member => scene.members[member - 1].start()?,
        }
        // It is one of them again before the next one dies.
        let set = |weight| set_weight(both[0], weight);
        set(100)?;
        before = wait_until_same(&both, &before)?;
    }
    for agent in both {
        let events: Vec<EventView> = agent.get("/v1/events")?;
        let agreement = events.iter().filter(|event| event.kind == Kind::Agreement);
        assert_eq!(agreement.count(), 1, "{events:#?}");
    }
    Ok(())
}

/// What a node has missed is not there any more.
#[test]
fn what_is_compacted_meanwhile_is_not_missed() -> Result<()> {
    let scene = Scene::new()?;
    scene.seed()?;
    let mut agent = scene.start(0)?;
    wait(&agent, |view| view.connected)?;
    agent.process().signal(Signal::SIGSTOP)?;
    let mut document = scene.document();
    // More than etcd keeps for who does not listen, and than fits into the connection.
    let backends = document["pools"]["echo"]["backends"].as_object_mut();
    let backends = backends.expect("backends");
    for number in 0..1000 {
        let address = format!("198.18.{}.{}:7000", 100 + number / 250, number % 250 + 1);
        let name = format!("more-{number}");
        backends.insert(name, json!({ "address": address, "weight": 0 }));
    }
    for weight in 1..=200 {
        document["pools"]["echo"]["backends"]["be3"]["weight"] = json!(weight);
        scene.etcdctl(&["put"], &["/weir/front", &document.to_string()])?;
    }
    let found = scene.etcdctl(&["get", "-w", "json"], &["/weir/front"])?;
    let found: Value = serde_json::from_slice(&found)?;
    let revision = found["header"]["revision"].as_i64();
    let revision = revision.expect("a revision");
    scene.etcdctl(&["compact"], &[&revision.to_string()])?;
    agent.process().signal(Signal::SIGCONT)?;
    retry(PATIENCE, || {
        let weight = weight(&agent)?;
        ensure!(weight == 200, "{weight}\n{}", agent.log());
        Ok(())
    })?;
    wait(&agent, |view| {
        view.connected && view.not_in_force.is_none() && view.revision > 200
    })?;
    // Of what it did not miss, it has skipped most.
    let taken = agent.log().matches("is in force").count();
    ensure!(taken < 100, "it has put {taken} revisions in force");
    // It follows what comes then.
    scene.seed()?;
    wait(&agent, |view| view.revision > revision)?;
    Ok(())
}

/// Packets to etcd are lost, and nobody says so.
#[test]
fn a_silent_cut_is_noticed() -> Result<()> {
    let scene = Scene::new()?;
    let mut document = scene.document();
    // etcd is there.
    let backends = document["pools"]["echo"]["backends"].as_object_mut();
    backends.expect("backends").remove("be1");
    let pushed = scene.push(&document.to_string(), &scene.location())?;
    assert!(pushed.is_ok(), "{pushed:?}");
    let agents = [scene.start(0)?, scene.start(1)?];
    let [first, second] = &agents;
    let before = wait_until_same(&[first, second], &BTreeMap::new())?;
    wait(first, |view| {
        view.health.as_ref().is_some_and(|is| is.agreed)
    })?;
    // Longer than etcd bears with what it does not like.
    retry(PATIENCE, || {
        let up = second.status()?.uptime_seconds;
        ensure!(up >= 10, "{up} s");
        Ok(())
    })?;
    for agent in [first, second] {
        let events: Vec<EventView> = agent.get("/v1/events")?;
        let lost = events
            .iter()
            .find(|event| event.kind == Kind::Configuration && event.warning);
        assert_eq!(lost, None);
    }
    let cut = Instant::now();
    scene.set_cut(0, 0, true)?;
    wait(first, |view| !view.connected && view.error.is_some())?;
    println!("noticed after {:?}", cut.elapsed());
    let (status, body) = first.request("DELETE", "/v1/services/echo", "")?;
    assert!(status == 503, "{status} {body}");
    wait(first, |view| {
        view.health.as_ref().is_some_and(|is| !is.agreed)
    })?;
    println!("alone after {:?}", cut.elapsed());
    assert_eq!(digests(first)?, before);
    let events: Vec<EventView> = first.get("/v1/events")?;
    for kind in [Kind::Configuration, Kind::Agreement] {
        let told = events
            .iter()
            .any(|event| event.kind == kind && event.warning);
        assert!(told, "{events:#?}");
    }
    // The others go on without it.
    let seen = view(second)?;
    assert!(seen.connected, "{seen:#?}\n{}", second.log());
    set_weight(second, 7)?;
    assert_eq!(weight(first)?, 100);
    scene.set_cut(0, 0, false)?;
    wait_until_same(&[first, second], &before)?;
    wait(first, |view| {
        view.connected && view.health.as_ref().is_some_and(|is| is.agreed)
    })?;
    Ok(())
}
