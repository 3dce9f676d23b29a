//! Planned changes lose no connection, and unplanned ones only those that they must.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    thread::sleep,
    time::Duration,
};

use anyhow::{Result, ensure};
use lab::{
    Lab, Plan, Wiring,
    load::{Load, Work},
    retry, servers,
};
use lb_userspace::state::BackendView;
use serde_json::{Value, json};
use weir_tests::{
    agent::{Agent, PATIENCE, pool},
    conversations::Conversations,
};

const ECHO: u16 = 7;
const WEB: u16 = 80;
/// Between two lines of a conversation.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two changes.
const BETWEEN: Duration = Duration::from_secs(1);

/// A lab with an echo server and a web server on each of six backends, of which four are in
/// the pools at first.
struct Scene {
    // In the order in which they end.
    agent: Agent,
    echo: Vec<servers::Echo>,
    _web: Vec<servers::Daemon>,
    vip: IpAddr,
    lab: Lab,
}

impl Scene {
    fn new(mode: &str, ipv6: bool, settings: &Value) -> Result<Self> {
        let dsr = mode == "dsr";
        let lab = Lab::new(&Plan {
            wiring: if dsr { Wiring::Segment } else { Wiring::Routed },
            backends: 6,
            vips: 1,
            backends_hold_vips: dsr,
        })?;
        let echo = lab
            .backends()
            .iter()
            .map(|backend| servers::echo(backend, ECHO));
        let echo = echo.collect::<Result<Vec<_>>>()?;
        let web = lab
            .backends()
            .iter()
            .map(|backend| servers::nginx(backend, WEB));
        let web = web.collect::<Result<Vec<_>>>()?;
        let vip = lab.vips()[0].both()[usize::from(ipv6)];
        let service = |name: &str, port: u16| {
            let mut service = json!({
                "address": vip, "port": port, "protocol": "tcp", "mode": mode, "pool": name,
            });
            for (key, value) in settings.as_object().into_iter().flatten() {
                service[key] = value.clone();
            }
            service
        };
        let document = json!({
            "agent": { "full_nat": { "addresses": lab.lb_addresses().both() } },
            "pools": {
                "echo": members(&lab, ipv6, ECHO, ""),
                "web": members(&lab, ipv6, WEB, ""),
            },
            "services": { "echo": service("echo", ECHO), "web": service("web", WEB) },
        });
        let agent = Agent::start(&lab, &document)?;
        Ok(Self {
            agent,
            echo,
            _web: web,
            vip,
            lab,
        })
    }

    fn target(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip, port)
    }

    fn talk(&self, count: u64) -> Result<Conversations> {
        Conversations::start(self.lab.client(), self.target(ECHO), count, PAUSE)
    }

    /// The same change to a backend of both pools.
    fn change(&self, method: &str, backend: &str, suffix: &str, body: &Value) -> Result<()> {
        for pool in ["echo", "web"] {
            let path = format!("/v1/pools/{pool}/backends/{backend}{suffix}");
            self.agent.change(method, &path, body)?;
        }
        Ok(())
    }

    /// Adds a backend, by its place in the lab, to both pools.
    fn add(&self, place: usize) -> Result<()> {
        let backend = &self.lab.backends()[place];
        for (pool, port) in [("echo", ECHO), ("web", WEB)] {
            let path = format!("/v1/pools/{pool}/backends/{}", backend.name);
            let body = json!({ "address": address(backend, self.vip.is_ipv6(), port) });
            self.agent.change("PUT", &path, &body)?;
        }
        Ok(())
    }

    fn view(&self, backend: &str) -> Result<BackendView> {
        self.agent
            .get(&format!("/v1/pools/echo/backends/{backend}"))
    }
}

fn address(backend: &lab::Backend, ipv6: bool, port: u16) -> SocketAddr {
    SocketAddr::new(backend.addresses.both()[usize::from(ipv6)], port)
}

/// A pool of the first four backends.
fn members(lab: &Lab, ipv6: bool, port: u16, check: &str) -> Value {
    let backends = lab.backends()[..4].iter();
    pool(
        backends.map(|backend| (backend.name.as_str(), address(backend, ipv6, port))),
        check,
    )
}

/// Two hundred connections that go on, and as many short ones as there can be, through thirty
/// planned changes, each before the last has settled.
fn planned_changes(mode: &str, ipv6: bool, settings: &Value) -> Result<()> {
    let scene = Scene::new(mode, ipv6, settings)?;
    let talks = scene.talk(200)?;
    let work = Work {
        clients: 8,
        per_connection: 1,
        ..Work::endless(scene.target(WEB))
    };
    let short = Load::http(scene.lab.client(), work)?;
    for round in 0..5 {
        scene.add(4)?;
        sleep(BETWEEN);
        scene.change("PUT", "be1", "/weight", &json!({ "weight": 20 + round }))?;
        sleep(BETWEEN);
        scene.change("PUT", "be2", "/drain", &json!({ "deadline": "10m" }))?;
        sleep(BETWEEN);
        scene.add(5)?;
        scene.change("DELETE", "be3", "", &Value::Null)?;
        sleep(BETWEEN);
        scene.change("DELETE", "be2", "/drain", &Value::Null)?;
        scene.add(2)?;
        sleep(BETWEEN);
        scene.change("DELETE", "be5", "", &Value::Null)?;
        scene.change("DELETE", "be6", "", &Value::Null)?;
        sleep(BETWEEN);
    }
    let results = short.stop();
    let report = talks.finish()?;
    println!("{mode}: {report:?}, {results:?}");
    assert_eq!(report.failures, Vec::<String>::new());
    assert!(report.exchanges > 200 * 100, "{report:?}");
    assert_eq!((results.failed, results.failures), (0, vec![]));
    assert!(results.requests > 1000, "{}", results.requests);
    Ok(())
}

#[test]
fn planned_changes_lose_nothing_with_nat() -> Result<()> {
    planned_changes("nat", false, &json!({}))
}

#[test]
fn planned_changes_lose_nothing_with_full_nat() -> Result<()> {
    planned_changes("full-nat", true, &json!({}))
}

#[test]
fn planned_changes_lose_nothing_with_dsr() -> Result<()> {
    planned_changes("dsr", false, &json!({}))
}

#[test]
fn planned_changes_lose_nothing_with_least_connections() -> Result<()> {
    planned_changes("nat", true, &json!({ "algorithm": "least-connections" }))
}

/// The algorithm of a live service changes, again and again.
#[test]
fn algorithms_change_and_lose_nothing() -> Result<()> {
    let scene = Scene::new("nat", false, &json!({}))?;
    let talks = scene.talk(100)?;
    for algorithm in [
        "round-robin",
        "source-hash",
        "least-connections",
        "random",
        "maglev",
    ] {
        let body = json!({
            "address": scene.vip, "port": ECHO, "protocol": "tcp", "mode": "nat", "pool": "echo",
            "algorithm": algorithm,
        });
        scene.agent.change("PUT", "/v1/services/echo", &body)?;
        sleep(BETWEEN);
    }
    let report = talks.finish()?;
    assert_eq!(report.failures, Vec::<String>::new());
    Ok(())
}

/// A drained backend gets nothing new, its flows are counted down, and it is out when none is
/// left.
#[test]
fn a_drain_ends_when_no_flow_is_left() -> Result<()> {
    let scene = Scene::new("nat", false, &json!({ "idle_timeout": "3s" }))?;
    let talks = scene.talk(40)?;
    scene.change("PUT", "be1", "/drain", &Value::Null)?;
    retry(PATIENCE, || {
        ensure!(scene.view("be1")?.counters.flows > 0, "no flow was counted");
        Ok(())
    })?;
    let status = scene.view("be1")?.drain.map(|drain| drain.status);
    assert_eq!(status.as_deref(), Some("draining"));
    let work = Work {
        per_connection: 1,
        ..Work::new(scene.target(WEB), 2000)
    };
    let new = Load::http(scene.lab.client(), work)?.finish()?;
    assert_eq!(
        (new.failed, new.by_backend.get("be1")),
        (0, None),
        "{new:?}"
    );
    assert_eq!(talks.finish()?.failures, Vec::<String>::new());
    retry(Duration::from_secs(60), || {
        let view = scene.view("be1")?;
        let status = view.drain.map(|drain| drain.status);
        let seen = (status.as_deref(), view.counters.flows);
        ensure!(seen == (Some("drained"), 0), "{seen:?}");
        Ok(())
    })?;
    scene.change("DELETE", "be1", "/drain", &Value::Null)?;
    scene.agent.wait_for("web", &["be1", "be2", "be3", "be4"])
}

/// At the deadline of a drain what is left is reset.
#[test]
fn a_drain_ends_at_its_deadline() -> Result<()> {
    let scene = Scene::new("nat", false, &json!({}))?;
    let talks = scene.talk(40)?;
    scene.change("PUT", "be1", "/drain", &json!({ "deadline": "3s" }))?;
    retry(PATIENCE, || {
        let status = scene.view("be1")?.drain.map(|drain| drain.status);
        ensure!(status.as_deref() == Some("drained"), "{status:?}");
        Ok(())
    })?;
    sleep(5 * PAUSE);
    lost_to_resets(&talks.finish()?.failures, 40);
    Ok(())
}

/// Some of the connections, not all, and each by a reset.
fn lost_to_resets(failures: &[String], of: usize) {
    assert!(!failures.is_empty() && failures.len() < of, "{failures:?}");
    for failure in failures {
        assert!(failure.contains("reset by peer"), "{failures:?}");
    }
}

/// The connections of a backend that dies are reset at their next packet, and no others.
#[test]
fn the_dead_are_told_of() -> Result<()> {
    let mut scene = Scene::new("nat", false, &json!({}))?;
    let body = members(&scene.lab, false, ECHO, "tcp");
    scene.agent.change("PUT", "/v1/pools/echo", &body)?;
    scene
        .agent
        .wait_for("echo", &["be1", "be2", "be3", "be4"])?;
    let talks = scene.talk(100)?;
    // It says nothing any more, not even that it is gone: only Weir can tell its clients.
    scene.echo[0].pause();
    let down = ["link", "set", "eth0", "down"];
    let namespace = &scene.lab.backends()[0].namespace;
    ensure!(namespace.command("ip").args(down).status()?.success());
    scene.agent.wait_for("echo", &["be2", "be3", "be4"])?;
    // They wait for an answer: TCP repeats their lines meanwhile.
    sleep(3 * BETWEEN);
    scene.echo[0].resume();
    lost_to_resets(&talks.finish()?.failures, 100);
    Ok(())
}

/// Where no backend is left, clients are refused at once.
#[test]
fn an_empty_pool_refuses() -> Result<()> {
    let scene = Scene::new("nat", true, &json!({}))?;
    for backend in ["be1", "be2", "be3", "be4"] {
        scene.change("DELETE", backend, "", &Value::Null)?;
    }
    let target = scene.target(WEB);
    let connect = move || TcpStream::connect_timeout(&target, Duration::from_secs(5));
    let error = scene
        .lab
        .client()
        .run(connect)?
        .expect_err("nobody is there");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let drops = &scene.agent.services()?["web"].counters.drops;
    assert!(drops["no_backend"] >= 1, "{drops:?}");
    Ok(())
}
