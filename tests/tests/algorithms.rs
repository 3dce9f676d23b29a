//! How new flows are spread, and who keeps whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    thread::sleep,
    time::Duration,
};

use anyhow::{Result, ensure};
use lab::{
    load::{Load, Work},
    retry,
};
use serde_json::{Value, json};
use weir_tests::{
    agent::PATIENCE,
    held::{Connection, Datagrams, Held},
    scene::{ECHO, Scene, Setup, WEB, in_every_mode},
};

const BACKENDS: [&str; 3] = ["be1", "be2", "be3"];

/// Connections that least-connections services count, by backend.
fn counts(scene: &Scene) -> Result<Vec<u64>> {
    let count = |name: &&str| Ok(scene.view(name)?.counters.open_connections);
    BACKENDS.iter().map(count).collect()
}

fn counted(scene: &Scene, wanted: u64, why: &str) -> Result<()> {
    retry(Duration::from_secs(40), || {
        let counts = counts(scene)?;
        ensure!(
            counts.iter().sum::<u64>() == wanted,
            "{why}: {counts:?}, not {wanted}"
        );
        Ok(())
    })
}

/// A backend that has many connections is spared until the others have as many.
#[test]
fn least_connections_levels() -> Result<()> {
    let spread = |algorithm: &str| -> Result<usize> {
        let scene = Scene::new(&Setup {
            members: 1,
            service: json!({ "algorithm": algorithm }),
            ..Setup::default()
        })?;
        let mut held = scene.hold(100)?;
        scene.add("echo", 1)?;
        scene.add("echo", 2)?;
        scene.agent.wait_for("echo", &BACKENDS)?;
        held.0.extend(scene.hold(200)?.0);
        held.all_say()?;
        let counts = held.by_partner();
        println!("{algorithm}: {counts:?}");
        let of = |name: &&str| counts.get(*name).copied().unwrap_or(0);
        let most = BACKENDS.iter().map(of).max().unwrap_or(0);
        Ok(most - BACKENDS.iter().map(of).min().unwrap_or(0))
    };
    let (least, hash) = (spread("least-connections")?, spread("maglev")?);
    // Two candidates of which both are the full one: a ninth of the time.
    assert!(least < 60 && hash > 75, "{least} and {hash}");
    Ok(())
}

/// Its counts are true, and go back to zero after a FIN, a RST, the death of a backend, and
/// where a FIN was lost, by the idle timeout.
#[test]
fn least_connections_counts_back_to_zero() -> Result<()> {
    in_every_mode(|mode| {
        let scene = Scene::new(&Setup {
            mode,
            check: "tcp",
            service: json!({ "algorithm": "least-connections", "idle_timeout": "10s" }),
            ..Setup::default()
        })?;
        let mut held = scene.hold(60)?;
        counted(&scene, 60, "opened")?;
        drop(held.0.split_off(40));
        counted(&scene, 40, "twenty FINs")?;
        for connection in held.0.split_off(20) {
            connection.reset()?;
        }
        counted(&scene, 20, "twenty RSTs")?;
        held.all_say()?;
        let left = 20 - held.of("be1") as u64;
        scene.cut(0)?;
        scene.agent.wait_for("echo", &BACKENDS[1..])?;
        retry(PATIENCE, || {
            let counts = counts(&scene)?;
            ensure!(counts[0] == 0, "the dead has {counts:?}");
            Ok(())
        })?;
        ensure!(counts(&scene)?.iter().sum::<u64>() <= left);
        let more = scene.hold(10)?;
        let mut command = scene.lab.client().command("ip");
        let status = command.args(["link", "set", "eth0", "down"]).status()?;
        ensure!(status.success(), "ip link set eth0 down: {status}");
        drop((held, more));
        counted(&scene, 0, "a cut link")
    })
}

/// Round robin and chance follow the weights, and a hash by addresses keeps clients.
#[test]
fn weights_are_followed() -> Result<()> {
    let scene = Scene::new(&Setup {
        web: true,
        ..Setup::default()
    })?;
    scene.change(&["web"], "PUT", "be2", "/weight", &json!({ "weight": 200 }))?;
    for (algorithm, most_astray) in [("round-robin", 60), ("random", 250), ("maglev", 250)] {
        scene.set_service("web", &json!({ "algorithm": algorithm }))?;
        let work = Work {
            per_connection: 1,
            ..Work::new(scene.target(WEB), 4000)
        };
        let results = Load::http(scene.lab.client(), work)?.finish()?;
        println!("{algorithm}: {:?}", results.by_backend);
        assert_eq!(results.failed, 0, "{results:?}");
        for (backend, fair) in [("be1", 1000u64), ("be2", 2000), ("be3", 1000)] {
            let share = results.by_backend[backend];
            assert!(
                share.abs_diff(fair) <= most_astray,
                "{algorithm}: {results:?}"
            );
        }
    }
    scene.set_service("web", &json!({ "algorithm": "source-hash" }))?;
    let work = Work {
        per_connection: 1,
        ..Work::new(scene.target(WEB), 500)
    };
    let results = Load::http(scene.lab.client(), work)?.finish()?;
    assert_eq!(
        (results.failed, results.by_backend.len()),
        (0, 1),
        "{results:?}"
    );
    Ok(())
}

/// Clients keep their backend for as long as they open something now and then, with every
/// algorithm.
#[test]
fn clients_keep_their_backend() -> Result<()> {
    in_every_mode(|mode| {
        let scene = Scene::new(&Setup {
            mode,
            ..Setup::default()
        })?;
        let clients: Vec<IpAddr> = (0..8u8)
            .map(|number| {
                let address = format!("198.18.0.{}", 100 + number);
                let mut command = scene.lab.client().command("ip");
                let to_eth0 = [&format!("{address}/24"), "dev", "eth0"];
                let status = command.args(["addr", "add"]).args(to_eth0).status()?;
                ensure!(status.success(), "ip addr add {address}: {status}");
                Ok(address.parse()?)
            })
            .collect::<Result<_>>()?;
        let target = scene.target(ECHO);
        let partners = |client: &IpAddr, count: usize| -> Result<BTreeSet<String>> {
            let from = SocketAddr::new(*client, 0);
            scene.lab.client().run(|| {
                let opened = (0..count).map(|_| Ok(Connection::open(Some(from), target)?.partner));
                opened.collect()
            })?
        };
        for algorithm in [
            "maglev",
            "source-hash",
            "round-robin",
            "least-connections",
            "random",
        ] {
            let settings = json!({ "algorithm": algorithm, "affinity": "3s" });
            scene.set_service("echo", &settings)?;
            let mut all = BTreeMap::new();
            for client in &clients {
                let its = partners(client, 6)?;
                assert_eq!(its.len(), 1, "{mode} {algorithm}: {client} had {its:?}");
                all.insert(client, its);
            }
            let different = all.values().collect::<BTreeSet<_>>().len();
            assert!(
                different > 1,
                "{mode} {algorithm}: all at {:?}",
                all.values().next()
            );
        }
        // One that is drained gets nobody new, bound or not.
        scene.set_service(
            "echo",
            &json!({ "algorithm": "round-robin", "affinity": "3s" }),
        )?;
        let first = partners(&clients[0], 1)?;
        let bound = first.first().cloned().unwrap_or_default();
        scene.change(&["echo"], "PUT", &bound, "/drain", &Value::Null)?;
        assert_ne!(partners(&clients[0], 3)?, first, "{mode}");
        scene.change(&["echo"], "DELETE", &bound, "/drain", &Value::Null)?;
        // After the timeout they are spread again, in turns.
        sleep(Duration::from_secs(6));
        let mut turns = BTreeSet::new();
        for client in &clients[..3] {
            turns.extend(partners(client, 2)?);
        }
        assert!(turns.len() > 1, "{mode}: {turns:?}");
        Ok(())
    })
}

/// With `flow`, datagrams go where the first of their flow went until it has been idle; with
/// `hash` they move with their slot.
#[test]
fn datagrams_follow_their_flow_or_their_hash() -> Result<()> {
    in_every_mode(|mode| {
        let scene = Scene::new(&Setup {
            mode,
            // Which finds out where the backends are: nobody repeats a datagram that is lost
            // while the first one asks.
            check: "tcp",
            udp: json!({ "tracking": "flow", "idle_timeout": "3s" }),
            ..Setup::default()
        })?;
        let flows = scene.datagrams(40)?;
        let ask = || Datagrams::ask_all(&flows);
        let before = ask()?;
        scene.change(&["udp"], "PUT", "be1", "/drain", &Value::Null)?;
        assert_eq!(ask()?, before, "{mode}: remembered");
        // Until the agent has looked at its tables after it, too.
        sleep(Duration::from_secs(10));
        let after = ask()?;
        assert!(
            !after.contains(&"be1".to_owned()),
            "{mode}: {after:?} after the idle timeout"
        );
        if mode != "full-nat" {
            // Which remembers all its flows.
            scene.change(&["udp"], "DELETE", "be1", "/drain", &Value::Null)?;
            scene.set_service("udp", &json!({}))?;
            let before = ask()?;
            ensure!(before.contains(&"be1".to_owned()), "{mode}: {before:?}");
            scene.change(&["udp"], "PUT", "be1", "/drain", &Value::Null)?;
            let after = ask()?;
            ensure!(
                !after.contains(&"be1".to_owned()),
                "{mode}: {after:?} by hash"
            );
        }
        Ok(())
    })
}

/// What `explain` says is what happens: to what is stable, moved, remembered, new or dead.
#[test]
fn explanations_are_true() -> Result<()> {
    in_every_mode(|mode| {
        let scene = Scene::new(&Setup {
            mode,
            check: "tcp",
            ..Setup::default()
        })?;
        let explain = |protocol: &str, client: SocketAddr| -> Result<Value> {
            let body = json!({
                "protocol": protocol, "client": client, "vip": scene.target(ECHO),
            });
            let (status, answer) = scene
                .agent
                .request("POST", "/v1/explain", &body.to_string())?;
            ensure!(status == 200, "{status} {answer}");
            Ok(serde_json::from_str(&answer)?)
        };
        let agrees = |held: &Held, when: &str| -> Result<()> {
            for connection in &held.0 {
                let told = explain("tcp", connection.from()?)?;
                let told_name = told["backend"].as_str().unwrap_or_default();
                let its = format!("echo/{}", connection.partner);
                ensure!(told_name == its, "{mode}, {when}: {its}, but told {told}");
            }
            Ok(())
        };
        let mut held = scene.hold(30)?;
        agrees(&held, "stable")?;
        scene.change(&["echo"], "PUT", "be1", "/drain", &Value::Null)?;
        agrees(&held, "moved")?;
        held.all_say()?;
        agrees(&held, "remembered")?;
        // One that is not open yet.
        let address = scene.lab.client_addresses().v4;
        for port in 20_000..20_010 {
            let from = SocketAddr::new(address.into(), port);
            let told = explain("tcp", from)?;
            let open = move |target| Connection::open(Some(from), target);
            let target = scene.target(ECHO);
            let opened = scene.lab.client().run(|| open(target))??;
            let its = format!("echo/{}", opened.partner);
            ensure!(
                told["new_flows"] == json!(its),
                "{mode}: {its}, but told {told}"
            );
        }
        scene.change(&["echo"], "DELETE", "be1", "/drain", &Value::Null)?;
        scene.cut(0)?;
        scene.agent.wait_for("echo", &BACKENDS[1..])?;
        for connection in held
            .0
            .iter()
            .filter(|connection| connection.partner == "be1")
        {
            let told = explain("tcp", connection.from()?)?;
            let why = told["why"].as_str().unwrap_or_default();
            ensure!(
                told["backend"].is_null() && why.contains("dead"),
                "{mode}: {told}"
            );
        }
        // Datagrams of flows that are remembered.
        scene.agent.wait_for("udp", &BACKENDS[1..])?;
        scene.set_service("udp", &json!({ "tracking": "flow" }))?;
        let flow = Datagrams::new(scene.lab.client(), scene.target(ECHO))?;
        flow.ask()?;
        let its = format!("udp/{}", flow.ask()?);
        let from = SocketAddr::new(address.into(), flow.from()?.port());
        let told = explain("udp", from)?;
        ensure!(
            told["backend"] == json!(its),
            "{mode}: {its}, but told {told}"
        );
        Ok(())
    })
}

/// Agents that were given the same in another order make the same tables.
#[test]
fn order_does_not_matter() -> Result<()> {
    let digests = |scene: &Scene| -> Result<Vec<String>> {
        let services = scene.agent.services()?;
        Ok(services
            .values()
            .map(|view| view.counters.digest.clone())
            .collect())
    };
    // Newcomers get nothing before their MAC addresses are known.
    let settle = |scene: &Scene| {
        let mut pools = ["echo", "udp"].iter();
        pools.try_for_each(|pool| scene.agent.wait_for(pool, &BACKENDS))
    };
    let there = Scene::new(&Setup::default())?;
    let setup = Setup {
        members: 1,
        ..Setup::default()
    };
    let other = Scene::new(&setup)?;
    for place in [2, 1] {
        other.add("echo", place)?;
        other.add("udp", place)?;
    }
    settle(&there)?;
    settle(&other)?;
    let same = digests(&there)?;
    assert_eq!(digests(&other)?, same);
    // Out and in again.
    other.change(&["echo", "udp"], "DELETE", "be1", "", &Value::Null)?;
    assert_ne!(digests(&other)?, same);
    other.add("udp", 0)?;
    other.add("echo", 0)?;
    settle(&other)?;
    assert_eq!(digests(&other)?, same);
    Ok(())
}
