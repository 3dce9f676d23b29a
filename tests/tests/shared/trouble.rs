//! Documents that cannot be used, and an etcd that cannot be reached.

use std::collections::BTreeMap;

use anyhow::Result;
use lb_userspace::shared::Origin;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::scene::{Scene, digests, view, wait, wait_until_same};

#[test]
fn an_invalid_document_changes_nothing() -> Result<()> {
    let scene = Scene::new()?;
    scene.seed()?;
    let agent = scene.start(0)?;
    let before = digests(&agent)?;
    let good = view(&agent)?.revision;
    for (document, field) in [
        (
            r#"{"pools": {"echo": {"backends": {"be1": {"address": "be1:80"}}}}}"#,
            "pools.echo.backends.be1.address",
        ),
        (
            r#"{"services": {"web": {"address": "198.19.0.9", "port": 80, "protocol": "tcp", "mode": "nat", "pool": "wbe"}}}"#,
            "services.web.pool",
        ),
        (r#"{"agent": {"interfaces": ["eth0"]}}"#, "agent.interfaces"),
        (
            r#"{"agent": {"hash_key": "000102030405060708090a0b0c0d0e0f"}}"#,
            "agent.hash_key",
        ),
        ("pools = 3", "pools"),
    ] {
        // Pushed by weir it is refused, unless only a running agent can tell.
        if field != "agent.hash_key" {
            let said = scene
                .push(document, &scene.location())?
                .expect_err("it is wrong");
            assert!(said.contains(&format!("{field}: got")), "{said}");
        }
        scene.etcdctl(&["put"], &["/weir/front", document])?;
        let shown = wait(&agent, |view| {
            let new = view.not_in_force.as_ref();
            new.is_some_and(|new| new.problems.iter().any(|problem| problem.field == field))
        })?;
        assert_eq!((shown.revision, shown.connected), (good, true));
        assert_eq!(digests(&agent)?, before);
        assert_eq!(agent.metric("weir_shared_not_in_force")?, 1);
        let status = String::from_utf8(agent.weir(&["status"])?.stdout)?;
        assert!(
            status.contains("NOT in force here") && status.contains(field),
            "{status}"
        );
    }
    // What is too large for etcd is undone here.
    scene.seed()?;
    wait(&agent, |view| view.not_in_force.is_none())?;
    let backends = (0..30_000).map(|number| {
        let address = format!(
            "10.9.{}.{}:{}",
            number / 250 % 250,
            number % 250 + 1,
            1 + number
        );
        (format!("backend-{number}"), json!({ "address": address }))
    });
    let large = json!({ "backends": backends.collect::<BTreeMap<_, _>>() });
    let (status, body) = agent.request("PUT", "/v1/pools/large", &large.to_string())?;
    assert!(
        status == 409 && body.contains("too large"),
        "{status} {body}"
    );
    assert_eq!(agent.pools()?.len(), 1);
    scene.etcdctl(&["put"], &["/weir/front", "pools = 3"])?;
    wait(&agent, |view| view.not_in_force.is_some())?;
    // A change on top of it is refused, and so is one where the document is gone.
    let change = || agent.request("DELETE", "/v1/services/echo", "");
    let (status, body) = change()?;
    assert!(
        status == 409 && body.contains("weir config push"),
        "{status} {body}"
    );
    scene.etcdctl(&["del"], &["/weir/front"])?;
    wait(&agent, |view| {
        view.not_in_force
            .as_ref()
            .is_some_and(|new| new.revision == 0)
    })?;
    let (status, body) = change()?;
    assert!(
        status == 409 && body.contains("no document under /weir/front"),
        "{status} {body}"
    );
    scene.seed()?;
    wait(&agent, |view| {
        view.not_in_force.is_none() && view.revision > good
    })?;
    Ok(())
}

/// Agents go on without etcd, also from the start; and catch up.
#[test]
fn without_etcd_nodes_go_on() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.seed()?;
    let agents = [scene.start(0)?, scene.start(1)?];
    let before = wait_until_same(&[&agents[0], &agents[1]], &Default::default())?;
    scene.etcd.stop()?;
    for agent in &agents {
        let lost = wait(agent, |view| !view.connected && view.error.is_some())?;
        assert_eq!(lost.origin, Origin::Etcd);
        assert_eq!(digests(agent)?, before);
        assert_eq!(agent.metric("weir_shared_connected")?, 0);
    }
    let (status, body) = agents[0].request("DELETE", "/v1/services/echo", "")?;
    assert!(
        status == 503 && body.contains("nothing was changed"),
        "{status} {body}"
    );
    // One starts again, from its copy.
    let [first, second] = agents;
    second.end(Signal::SIGTERM)?;
    let second = scene.start(1)?;
    let shown = view(&second)?;
    assert_eq!((shown.origin, shown.connected), (Origin::Disk, false));
    assert!(second.log().contains("going on with the copy on disk"));
    let status = String::from_utf8(second.weir(&["status"])?.stdout)?;
    assert!(
        status.contains("NOT CONNECTED") && status.contains("from the copy on disk"),
        "{status}"
    );
    wait_until_same(&[&second, &first], &Default::default())?;
    // etcd comes back, with what nobody has seen yet, and no memory of what was before.
    scene.etcd.start()?;
    let mut document = scene.document();
    document["pools"]["echo"]["backends"]["be3"]["weight"] = json!(1);
    scene.etcdctl(&["put"], &["/weir/front", &document.to_string()])?;
    wait_until_same(&[&second, &first], &before)?;
    for agent in [&first, &second] {
        wait(agent, |view| view.connected && view.origin == Origin::Etcd)?;
    }
    // Without etcd and without a copy there is nothing to start with.
    scene.etcd.stop()?;
    second.end(Signal::SIGTERM)?;
    std::fs::remove_file(scene.copy(1))?;
    let error = scene
        .start(1)
        .map(drop)
        .expect_err("there is no configuration");
    let error = format!("{error:#}");
    assert!(
        error.contains("the copy on disk: there is none at"),
        "{error}"
    );
    Ok(())
}
