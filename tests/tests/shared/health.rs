//! Nodes agree on health: the table stays the same on all.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use lab::retry;
use lb_userspace::{
    events::{EventView, Kind},
    ha::routes::{RouteState, RoutesView},
    health::vote::Tally,
    state::HealthView,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::agent::{Agent, PATIENCE};

use crate::scene::{Scene, digests, view, wait, wait_until_same};

/// The backend that nodes lose their way to. etcd is on the first.
const LOST: usize = 1;
const NAME: &str = "be2";
const ALL: [&str; 3] = ["be1", "be2", "be3"];
const OTHERS: [&str; 2] = ["be1", "be3"];

/// A short lease.
fn local() -> Value {
    json!({ "ha": { "health": { "lease": "2s" } } })
}

fn health(agent: &Agent) -> Result<HealthView> {
    let mut pool = agent.pools()?.remove("echo").expect("the pool");
    Ok(pool.backends.remove(NAME).expect("the backend").health)
}

fn votes(healthy: u32, unhealthy: u32) -> Option<Tally> {
    Some(Tally { healthy, unhealthy })
}

/// Waits until a node counts these votes on the backend.
fn wait_for_votes(agent: &Agent, votes: Option<Tally>) -> Result<HealthView> {
    retry(PATIENCE, || {
        let health = health(agent)?;
        ensure!(health.votes == votes, "{health:?}\n{}", agent.log());
        Ok(health)
    })
}

/// Three nodes that agree on three backends, and their digests.
fn begin(scene: &Scene) -> Result<([Agent; 3], BTreeMap<String, String>)> {
    scene.seed()?;
    let local = local();
    let start = |node| scene.start_with(node, &local);
    let agents = [start(0)?, start(1)?, start(2)?];
    for agent in &agents {
        wait_for_votes(agent, votes(3, 0))?;
        agent.wait_for("echo", &ALL)?;
    }
    let before = wait_until_same(&agents.each_ref(), &BTreeMap::new())?;
    Ok((agents, before))
}

#[test]
fn one_node_that_loses_its_way_changes_no_table() -> Result<()> {
    let scene = Scene::of_three()?;
    let (agents, before) = begin(&scene)?;
    scene.set_cut(0, LOST, true)?;
    for agent in &agents {
        let health = wait_for_votes(agent, votes(2, 1))?;
        assert_eq!(health.status, "healthy");
        assert_eq!(digests(agent)?, before);
    }
    let seen = health(&agents[0])?;
    assert_eq!(seen.here(), "unhealthy", "{seen:?}");
    assert_eq!(seen.reason, "healthy for 2 of 3 nodes");
    let metric = |agent: &Agent, name: &str| {
        agent.metric(&format!("{name}{{pool=\"echo\",backend=\"{NAME}\"}}"))
    };
    for (agent, here) in agents.iter().zip([0, 1, 1]) {
        assert_eq!(metric(agent, "weir_backend_healthy")?, 1);
        assert_eq!(metric(agent, "weir_backend_healthy_here")?, here);
        assert_eq!(agent.metric("weir_health_agreed")?, 1);
        assert_eq!(agent.metric("weir_health_nodes")?, 3);
    }
    let status = String::from_utf8(agents[0].weir(&["status"])?.stdout)?;
    assert!(
        status.contains("healthy, here unhealthy") && status.contains("by 3 nodes"),
        "{status}"
    );

    // A second one: that is the majority, and the third follows it.
    scene.set_cut(1, LOST, true)?;
    let without = wait_until_same(&agents.each_ref(), &before)?;
    for agent in &agents {
        wait_for_votes(agent, votes(1, 2))?;
        agent.wait_for("echo", &OTHERS)?;
        assert_eq!(digests(agent)?, without);
    }
    assert_eq!(health(&agents[2])?.here(), "healthy");

    // One of the two finds its way again, then the other.
    for node in [0, 1] {
        scene.set_cut(node, LOST, false)?;
        for agent in &agents {
            wait_for_votes(agent, votes(2 + node as u32, 1 - node as u32))?;
            agent.wait_for("echo", &ALL)?;
        }
    }
    assert_eq!(wait_until_same(&agents.each_ref(), &without)?, before);
    Ok(())
}

/// The votes of a node that is killed count until its lease ends; one that is told to end takes
/// its own back.
#[test]
fn votes_end_with_their_node() -> Result<()> {
    let scene = Scene::of_three()?;
    let ([mut first, second, third], before) = begin(&scene)?;
    for node in [0, 1] {
        scene.set_cut(node, LOST, true)?;
    }
    wait_until_same(&[&first, &second, &third], &before)?;
    first.process().signal(Signal::SIGKILL)?;
    // One against one: who half of the nodes reach is healthy.
    for agent in [&second, &third] {
        wait_for_votes(agent, votes(1, 1))?;
        agent.wait_for("echo", &ALL)?;
        wait(agent, |view| {
            view.health.as_ref().is_some_and(|is| is.nodes.len() == 2)
        })?;
    }
    assert_eq!(
        wait_until_same(&[&second, &third], &BTreeMap::new())?,
        before
    );
    // Longer than this test waits.
    let lasting = json!({ "ha": { "health": { "lease": "10m" } } });
    let first = scene.start_with(0, &lasting)?;
    wait_for_votes(&third, votes(1, 2))?;
    first.end(Signal::SIGTERM)?;
    wait_for_votes(&third, votes(1, 1))?;
    Ok(())
}

/// An agent that takes over from another goes on with its votes: nobody counts them twice, or not.
#[test]
fn votes_outlive_an_agent_that_is_taken_over() -> Result<()> {
    let scene = Scene::of_three()?;
    let ([mut first, second, third], before) = begin(&scene)?;
    scene.set_cut(0, LOST, true)?;
    for agent in [&first, &second, &third] {
        wait_for_votes(agent, votes(2, 1))?;
    }
    scene.set_cut(1, LOST, true)?;
    let without = wait_until_same(&[&first, &second, &third], &before)?;
    let changes = || {
        third.log().matches("agreed healthy").count()
            + third.log().matches("agreed unhealthy").count()
    };
    let seen = changes();
    drop(first.take_over()?);
    assert_eq!(digests(&first)?, without);
    assert_eq!(wait_for_votes(&first, votes(1, 2))?.here(), "unhealthy");
    // Its vote is its own: it is heard when it changes.
    scene.set_cut(0, LOST, false)?;
    wait_for_votes(&third, votes(2, 1))?;
    assert_eq!(changes(), seen + 1, "{}", third.log());
    assert_eq!(view(&third)?.health.map(|is| is.nodes.len()), Some(3));
    Ok(())
}

/// After a lease without etcd each acts on its own checks; and they agree again when it is back.
#[test]
fn without_etcd_each_node_is_alone() -> Result<()> {
    let mut scene = Scene::of_three()?;
    let (agents, before) = begin(&scene)?;
    scene.set_cut(0, LOST, true)?;
    for agent in &agents {
        wait_for_votes(agent, votes(2, 1))?;
    }
    scene.etcd.stop()?;
    agents[0].wait_for("echo", &OTHERS)?;
    for agent in &agents {
        let alone = wait(agent, |view| {
            view.health.as_ref().is_some_and(|is| !is.agreed)
        })?;
        assert!(alone.health.is_some_and(|is| is.error.is_some()));
        assert_eq!(agent.metric("weir_health_agreed")?, 0);
        let status = String::from_utf8(agent.weir(&["status"])?.stdout)?;
        assert!(status.contains("health is NOT AGREED"), "{status}");
        assert_eq!(health(agent)?.votes, None);
    }
    // The digests tell of it.
    assert_ne!(digests(&agents[0])?, before);
    assert_eq!(digests(&agents[1])?, before);
    assert_eq!(digests(&agents[2])?, before);
    scene.etcd.start()?;
    for agent in &agents {
        wait_for_votes(agent, votes(2, 1))?;
        agent.wait_for("echo", &ALL)?;
    }
    // What has happened, in order.
    let events: Vec<EventView> = agents[0].get("/v1/events")?;
    let of = |kind: Kind| {
        let of_kind = events.iter().filter(move |event| event.kind == kind);
        of_kind.map(|event| (event.warning, event.text.as_str()))
    };
    let agreement: Vec<bool> = of(Kind::Agreement).map(|(warning, _)| warning).collect();
    assert_eq!(agreement, [false, true, false], "{events:#?}");
    assert!(
        of(Kind::Configuration).any(|(warning, _)| warning),
        "{events:#?}"
    );
    let here = "unhealthy here: timed out after 1s waiting for the connection";
    assert!(
        of(Kind::Health).any(|(_, text)| text == here),
        "{events:#?}"
    );
    assert_eq!(
        agents[0].metric("weir_events_total{kind=\"agreement\"}")?,
        3
    );
    let shown = String::from_utf8(agents[0].weir(&["events"])?.stdout)?;
    assert!(
        shown.contains("echo/be2") && shown.contains("! health is what"),
        "{shown}"
    );
    assert_eq!(
        wait_until_same(&agents.each_ref(), &BTreeMap::new())?,
        before
    );
    Ok(())
}

/// A node that starts takes the others' word until its own checks have ended.
#[test]
fn a_node_that_starts_knows_what_the_others_know() -> Result<()> {
    let scene = Scene::of_three()?;
    let mut document = scene.document();
    // So long does a check take where everything is lost.
    document["pools"]["echo"]["health_check"]["timeout"] = json!("30s");
    let pushed = scene.push(&document.to_string(), &scene.location())?;
    assert!(pushed.is_ok(), "{pushed:?}");
    let others = [scene.start(0)?, scene.start(1)?];
    for agent in &others {
        wait_for_votes(agent, votes(2, 0))?;
    }
    scene.set_cut(2, LOST, true)?;
    let third = scene.start(2)?;
    let seen = health(&third)?;
    assert_eq!(
        (&*seen.status, seen.here()),
        ("healthy", "unknown"),
        "{seen:?}"
    );
    third.wait_for("echo", &ALL)?;
    wait_until_same(&[&third, &others[0], &others[1]], &BTreeMap::new())?;
    assert_eq!(health(&third)?.here(), "unknown", "its check is under way");
    Ok(())
}

/// What others reach is no reason to draw clients here.
#[test]
fn a_node_that_reaches_no_backend_leaves_the_vip_to_others() -> Result<()> {
    let scene = Scene::of_three()?;
    let mut document = scene.document();
    // etcd is on the first.
    for name in OTHERS {
        let backends = document["pools"]["echo"]["backends"].as_object_mut();
        backends.expect("backends").remove(name);
    }
    let pushed = scene.push(&document.to_string(), &scene.location())?;
    assert!(pushed.is_ok(), "{pushed:?}");
    let local = json!({ "ha": { "routes": {} } });
    let start = |node| scene.start_with(node, &local);
    let agents = [start(0)?, start(1)?, start(2)?];
    let vip = scene.lab.vips()[0].v4.into();
    let wait_for = |agent: &Agent, state: RouteState| {
        retry(PATIENCE, || {
            let routes: RoutesView = agent.get("/v1/routes")?;
            let is = routes.get(&vip).map(|route| route.state);
            ensure!(is == Some(state), "{routes:?}\n{}", agent.log());
            Ok(())
        })
    };
    for agent in &agents {
        wait_for(agent, RouteState::Announced)?;
    }
    scene.set_cut(0, LOST, true)?;
    wait_for(&agents[0], RouteState::Withheld)?;
    for agent in &agents {
        assert_eq!(wait_for_votes(agent, votes(2, 1))?.status, "healthy");
    }
    for agent in &agents[1..] {
        wait_for(agent, RouteState::Announced)?;
    }
    scene.set_cut(0, LOST, false)?;
    wait_for(&agents[0], RouteState::Announced)
}

/// Nobody is told, and nobody is asked.
#[test]
fn a_node_can_act_alone() -> Result<()> {
    let scene = Scene::of_three()?;
    scene.seed()?;
    let alone = json!({ "ha": { "health": { "agree": false } } });
    let agents = [
        scene.start(0)?,
        scene.start(1)?,
        scene.start_with(2, &alone)?,
    ];
    for agent in &agents[..2] {
        wait_for_votes(agent, votes(2, 0))?;
    }
    assert_eq!(view(&agents[2])?.health, None);
    scene.set_cut(2, LOST, true)?;
    agents[2].wait_for("echo", &OTHERS)?;
    assert_eq!(health(&agents[0])?.votes, votes(2, 0));
    Ok(())
}
