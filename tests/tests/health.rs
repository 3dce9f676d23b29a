//! Backends that die and come back.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use lab::{
    Lab, Plan,
    load::{Load, Work},
    servers::{self, Daemon},
};
use serde_json::json;
use weir_tests::agent::{Agent, pool};

const PORT: u16 = 80;
const ALL: [&str; 3] = ["be1", "be2", "be3"];

struct Scene {
    agent: Agent,
    web: Vec<Daemon>,
    vip: SocketAddr,
    lab: Lab,
}

fn scene() -> Result<Scene> {
    let lab = Lab::new(&Plan::default())?;
    let web = lab
        .backends()
        .iter()
        .map(|backend| servers::nginx(backend, PORT));
    let web = web.collect::<Result<Vec<_>>>()?;
    let backends = lab.backends().iter();
    let backends = backends.map(|b| {
        (
            b.name.as_str(),
            SocketAddr::new(b.addresses.v4.into(), PORT),
        )
    });
    let vip = SocketAddr::new(lab.vips()[0].v4.into(), PORT);
    let document = json!({
        "pools": { "web": pool(backends, "http") },
        "services": { "web": {
            "address": vip.ip(), "port": PORT, "protocol": "tcp", "mode": "nat", "pool": "web",
        } },
    });
    let agent = Agent::start(&lab, &document)?;
    agent.wait_for("web", &ALL)?;
    Ok(Scene {
        agent,
        web,
        vip,
        lab,
    })
}

/// Connections that each ask once; nobody but these may answer, and all must.
fn only(scene: &Scene, backends: &[&str]) -> Result<()> {
    let work = Work {
        per_connection: 1,
        timeout: Duration::from_secs(2),
        ..Work::new(scene.vip, 5000)
    };
    let results = Load::http(scene.lab.client(), work)?.finish()?;
    let answered: Vec<_> = results.by_backend.keys().map(String::as_str).collect();
    assert_eq!(
        (results.failed, answered.as_slice()),
        (0, backends),
        "{results:?}"
    );
    Ok(())
}

#[test]
fn a_killed_backend_leaves_and_comes_back() -> Result<()> {
    let mut scene = scene()?;
    scene.web[1].stop()?;
    scene.agent.wait_for("web", &["be1", "be3"])?;
    only(&scene, &["be1", "be3"])?;
    let reason = &scene.agent.pools()?["web"].backends["be2"].health.reason;
    assert_eq!(reason, "connect: connection refused");
    scene.web[1].start()?;
    scene.agent.wait_for("web", &ALL)?;
    only(&scene, &ALL)
}

#[test]
fn a_backend_that_hangs_leaves_and_comes_back() -> Result<()> {
    let mut scene = scene()?;
    scene.web[2].pause()?;
    scene.agent.wait_for("web", &["be1", "be2"])?;
    only(&scene, &["be1", "be2"])?;
    scene.web[2].resume()?;
    scene.agent.wait_for("web", &ALL)?;
    only(&scene, &ALL)
}

/// With two of three dead the floor of a half is not kept, and the dead are used too; without
/// a floor they are not.
#[test]
fn health_does_not_empty_a_pool() -> Result<()> {
    let mut scene = scene()?;
    scene.web[0].stop()?;
    scene.agent.wait_for("web", &["be2", "be3"])?;
    scene.web[1].stop()?;
    scene.agent.wait_for("web", &ALL)?;
    let pool = scene.agent.pools()?.remove("web").expect("the pool");
    assert!(pool.below_health_floor);
    let below = r#"weir_pool_below_health_floor{pool="web"}"#;
    assert_eq!(scene.agent.metric(below)?, 1);
    assert!(
        scene
            .agent
            .log()
            .contains("too much of the pool fails its checks")
    );
    let mut config = pool.config;
    config.health_floor_percent = 0;
    scene.agent.change("PUT", "/v1/pools/web", &json!(config))?;
    scene.agent.wait_for("web", &["be3"])?;
    assert_eq!(scene.agent.metric(below)?, 0);
    only(&scene, &["be3"])
}

/// While every backend of its pool is dead, a service is served by its fallback.
#[test]
fn a_fallback_pool_takes_over() -> Result<()> {
    let mut scene = scene()?;
    let backend = &scene.lab.backends()[2];
    let address = SocketAddr::new(backend.addresses.v4.into(), PORT);
    scene
        .agent
        .change("DELETE", "/v1/pools/web/backends/be3", &json!(null))?;
    scene
        .agent
        .change("PUT", "/v1/pools/sorry", &pool([("be3", address)], ""))?;
    let mut service = scene.agent.services()?["web"].config.clone();
    service.fallback_pool = Some("sorry".into());
    scene
        .agent
        .change("PUT", "/v1/services/web", &json!(service))?;
    only(&scene, &["be1", "be2"])?;
    scene.web[0].stop()?;
    scene.web[1].stop()?;
    lab::retry(weir_tests::agent::PATIENCE, || {
        let by = scene.agent.services()?["web"].served_by.clone();
        anyhow::ensure!(by == "sorry", "served by {by}");
        Ok(())
    })?;
    only(&scene, &["be3"])?;
    scene.web[0].start()?;
    scene.agent.wait_for("web", &["be1"])?;
    only(&scene, &["be1"])
}

/// A backend that comes back gets its share little by little.
#[test]
fn slow_start_ramps() -> Result<()> {
    let mut scene = scene()?;
    let mut config = scene.agent.pools()?["web"].config.clone();
    config.slow_start = Some(Duration::from_secs(3600));
    scene.agent.change("PUT", "/v1/pools/web", &json!(config))?;
    scene.web[0].stop()?;
    scene.agent.wait_for("web", &["be2", "be3"])?;
    scene.web[0].start()?;
    scene.agent.wait_for("web", &ALL)?;
    let work = Work {
        per_connection: 1,
        ..Work::new(scene.vip, 5000)
    };
    let results = Load::http(scene.lab.client(), work)?.finish()?;
    // A tenth of its weight is a twenty-first of the whole: 238.
    let share = results.by_backend["be1"];
    assert!((100..=400).contains(&share), "{results:?}");
    assert_eq!(results.failed, 0);
    Ok(())
}
