//! Changes over one node's API reach all, and none is lost.

use std::{collections::BTreeMap, thread};

use anyhow::Result;
use serde_json::{Value, json};
use weir_tests::agent::Agent;

use crate::scene::{Scene, digests, view, wait, wait_until_same};

fn weight(agent: &Agent, backend: &str, weight: u16) -> Result<()> {
    let path = format!("/v1/pools/echo/backends/{backend}/weight");
    agent.change("PUT", &path, &json!({ "weight": weight }))
}

#[test]
fn a_change_reaches_all_nodes() -> Result<()> {
    let scene = Scene::new()?;
    // A document in TOML is as good; the first change rewrites it in JSON.
    let toml = format!(
        "[pools.echo.backends]\nbe1 = {{ address = \"{}:7000\" }}\n",
        scene.lab.backends()[0].addresses.v4
    );
    let pushed = scene.push(&toml, &scene.location())?;
    assert!(pushed.is_ok(), "{pushed:?}");
    let agents = [scene.start(0)?, scene.start(1)?];
    let [first, second] = &agents;
    let document = scene.document();
    for (path, body) in [
        ("/v1/pools/echo", &document["pools"]["echo"]),
        ("/v1/services/echo", &document["services"]["echo"]),
    ] {
        first.change("PUT", path, body)?;
    }
    let before = wait_until_same(&[first, second], &BTreeMap::new())?;
    assert_eq!(before.len(), 1);
    weight(second, "be2", 17)?;
    // The answer comes when it is in etcd.
    assert_eq!(
        scene.in_etcd()?["pools"]["echo"]["backends"]["be2"]["weight"],
        17
    );
    wait_until_same(&[second, first], &before)?;
    let revision = view(second)?.revision;
    wait(first, |view| view.connected && view.revision == revision)?;
    assert_eq!(first.pools()?["echo"].backends["be2"].config.weight, 17);
    // What breaks a rule, or this node alone cannot do, is not put there.
    let (status, body) = first.request("DELETE", "/v1/pools/echo", "")?;
    assert_eq!(status, 422, "{body}");
    assert!(body.contains("services.echo.pool"), "{body}");
    let certificate = json!({
        "address": scene.lab.vips()[0].v4, "port": 443, "protocol": "tcp", "mode": "local",
        "pool": "echo", "tls": { "certificates": [{ "chain": "/none", "key": "/none" }] },
    });
    let (status, body) = first.request("PUT", "/v1/services/tls", &certificate.to_string())?;
    assert_eq!(status, 409, "{body}");
    assert_eq!(scene.in_etcd()?["services"].get("tls"), None);
    // The whole document too.
    let mut whole: Value = second.get("/v1/config")?;
    whole["pools"]["echo"]["backends"]["be3"]["weight"] = json!(0);
    let before = digests(second)?;
    second.change("PUT", "/v1/config", &whole)?;
    wait_until_same(&[second, first], &before)?;
    let shown = first.weir(&["status"])?;
    let shown = String::from_utf8(shown.stdout)?;
    assert!(shown.contains("/weir/front: connected since"), "{shown}");
    assert_eq!(first.metric("weir_shared_connected")?, 1);
    Ok(())
}

/// Both nodes are told of many changes at once: each is made, or refused and not made.
#[test]
fn concurrent_changes_are_all_there() -> Result<()> {
    const EACH: u16 = 25;
    let scene = Scene::new()?;
    scene.seed()?;
    let agents = [scene.start(0)?, scene.start(1)?];
    let put = |agent: &Agent, node: usize| -> Result<()> {
        for number in 0..EACH {
            let path = format!("/v1/pools/echo/backends/n{node}-{number}");
            let address = format!("198.18.1.{}:{}", 100 + node, 1000 + number);
            agent.change("PUT", &path, &json!({ "address": address, "weight": 1 }))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let tasks = agents
            .iter()
            .zip(0..)
            .map(|(agent, node)| scope.spawn(move || put(agent, node)));
        let tasks: Vec<_> = tasks.collect();
        tasks
            .into_iter()
            .try_for_each(|task| task.join().expect("no panic"))
    })?;
    wait_until_same(&[&agents[0], &agents[1]], &BTreeMap::new())?;
    for agent in &agents {
        assert_eq!(
            agent.pools()?["echo"].backends.len(),
            3 + 2 * usize::from(EACH)
        );
    }
    // The same field: each answer is true when it is given.
    let refused: Vec<u16> = thread::scope(|scope| {
        let set = |agent: &Agent, value: u16| -> Result<(u16, u16)> {
            let body = json!({ "weight": value }).to_string();
            let path = "/v1/pools/echo/backends/be1/weight";
            Ok((agent.request("PUT", path, &body)?.0, value))
        };
        let tasks = (0..40u16).map(|value| {
            let agent = &agents[usize::from(value % 2)];
            scope.spawn(move || set(agent, value))
        });
        let tasks: Vec<_> = tasks.collect();
        let answers = tasks.into_iter().map(|task| task.join().expect("no panic"));
        let answers = answers.collect::<Result<Vec<_>>>()?;
        let known = |(status, _): &(u16, u16)| [204, 409].contains(status);
        assert!(answers.iter().all(known), "{answers:?}");
        let refused = answers.iter().filter(|(status, _)| *status == 409);
        anyhow::Ok(refused.map(|(_, value)| *value).collect())
    })?;
    println!("{} of 40 changes of one field were refused", refused.len());
    let weight = scene.in_etcd()?["pools"]["echo"]["backends"]["be1"]["weight"].as_u64();
    let weight = u16::try_from(weight.expect("a weight"))?;
    assert!(!refused.contains(&weight), "{weight} was refused");
    wait_until_same(&[&agents[0], &agents[1]], &BTreeMap::new())?;
    assert_eq!(
        agents[0].pools()?["echo"].backends["be1"].config.weight,
        weight
    );
    Ok(())
}
