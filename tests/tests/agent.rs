//! The agent's life: its API and command line, its signals, and what it leaves alone.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Output,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData, MapInfo};
use lab::{
    Lab, Plan,
    load::{Load, Results, Work},
    ping, servers,
};
use lb_common::abi::ServiceKey;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::agent::{Agent, binary, pool};

const PORT: u16 = 80;

struct Scene {
    agent: Agent,
    _web: Vec<servers::Daemon>,
    vip: SocketAddr,
    lab: Lab,
}

fn document(lab: &Lab) -> Value {
    let backends = lab.backends()[..2].iter();
    let backends = backends.map(|b| {
        (
            b.name.as_str(),
            SocketAddr::new(b.addresses.v4.into(), PORT),
        )
    });
    json!({
        "pools": { "web": pool(backends, "") },
        "services": { "web": {
            "address": lab.vips()[0].v4, "port": PORT, "protocol": "tcp", "mode": "nat",
            "pool": "web",
        } },
    })
}

fn scene() -> Result<Scene> {
    scene_with(|_| ())
}

/// With a configuration that is changed before the agent starts.
fn scene_with(change: impl FnOnce(&mut Value)) -> Result<Scene> {
    let lab = Lab::new(&Plan::default())?;
    let web = lab
        .backends()
        .iter()
        .map(|backend| servers::nginx(backend, PORT));
    let web = web.collect::<Result<Vec<_>>>()?;
    let mut document = document(&lab);
    change(&mut document);
    let agent = Agent::start(&lab, &document)?;
    Ok(Scene {
        agent,
        _web: web,
        vip: SocketAddr::new(lab.vips()[0].v4.into(), PORT),
        lab,
    })
}

impl Scene {
    fn ask(&self, vip: SocketAddr, requests: u64) -> Result<Results> {
        let work = Work {
            per_connection: 1,
            ..Work::new(vip, requests)
        };
        let results = Load::http(self.lab.client(), work)?.finish()?;
        assert_eq!(results.failed, 0, "{results:?}");
        Ok(results)
    }

    fn backend(&self, place: usize) -> SocketAddr {
        SocketAddr::new(self.lab.backends()[place].addresses.v4.into(), PORT)
    }
}

#[test]
fn metrics_count_what_happens() -> Result<()> {
    let scene = scene()?;
    let agent = &scene.agent;
    scene.ask(scene.vip, 50)?;
    let traffic = &agent.services()?["web"].counters.traffic;
    for (name, value) in [
        (r#"service_packets_total{service="web"}"#, traffic.packets),
        (r#"service_bytes_total{service="web"}"#, traffic.bytes),
        (r#"service_connections_total{service="web"}"#, 50),
        (r#"service_tracked_slots{service="web"}"#, 0),
        (r#"backend_in_use{pool="web",backend="be1"}"#, 1),
        (r#"backend_healthy{pool="web",backend="be2"}"#, 1),
        (r#"backend_open_connections{pool="web",backend="be2"}"#, 0),
        (r#"pool_below_health_floor{pool="web"}"#, 0),
        (r#"flows{table="tracked"}"#, 0),
        ("flows_limit", 65_536),
        ("flows_evicted_total", 0),
    ] {
        assert_eq!(agent.metric(&format!("weir_{name}"))?, value, "{name}");
    }
    let connections = |backend: &str| {
        let labels = format!(r#"{{pool="web",backend="{backend}"}}"#);
        agent.metric(&format!("weir_backend_connections_total{labels}"))
    };
    assert_eq!(connections("be1")? + connections("be2")?, 50);
    for backend in ["be1", "be2"] {
        let path = format!("/v1/pools/web/backends/{backend}");
        agent.change("DELETE", &path, &Value::Null)?;
    }
    let vip = scene.vip;
    let refused = scene
        .lab
        .client()
        .run(move || TcpStream::connect(vip).is_err())?;
    assert!(refused, "the pool is empty");
    let drops = r#"weir_service_drops_total{service="web",reason="no_backend"}"#;
    assert_eq!(agent.metric(drops)?, 1);
    let (_, text) = agent.request("GET", "/metrics", "")?;
    assert!(text.ends_with("# EOF\n"), "{text}");
    Ok(())
}

#[test]
fn the_api_changes_a_live_agent() -> Result<()> {
    let scene = scene()?;
    let agent = &scene.agent;
    // A service of its own on another VIP port, for the third backend.
    agent.change(
        "PUT",
        "/v1/pools/more",
        &pool([("be3", scene.backend(2))], ""),
    )?;
    let other = SocketAddr::new(scene.vip.ip(), 81);
    let service = json!({
        "address": other.ip(), "port": 81, "protocol": "tcp", "mode": "nat", "pool": "more",
    });
    let (status, _) = agent.request("PUT", "/v1/services/more", &service.to_string())?;
    assert_eq!(status, 201);
    let (status, _) = agent.request("PUT", "/v1/services/more", &service.to_string())?;
    assert_eq!(status, 204, "it replaced itself");
    assert_eq!(scene.ask(other, 50)?.by_backend["be3"], 50);
    // Weights.
    let weight = "/v1/pools/web/backends/be1/weight";
    agent.change("PUT", weight, &json!({ "weight": 0 }))?;
    assert_eq!(scene.ask(scene.vip, 200)?.by_backend.get("be1"), None);
    agent.change("PATCH", weight, &json!({ "weight": 300 }))?;
    let share = scene.ask(scene.vip, 4000)?.by_backend["be1"];
    assert!(
        (2800..3200).contains(&share),
        "three quarters of 4,000: {share}"
    );
    // A backend more, and a service less.
    let three = json!({ "address": scene.backend(2) });
    agent.change("DELETE", "/v1/services/more", &Value::Null)?;
    agent.change("PUT", "/v1/pools/web/backends/be3", &three)?;
    assert!(scene.ask(scene.vip, 400)?.by_backend.contains_key("be3"));
    let gone = scene
        .lab
        .client()
        .run(move || TcpStream::connect_timeout(&other, Duration::from_millis(300)).is_err())?;
    assert!(gone, "the VIP's port is nobody's");
    // The whole document, back and forth.
    let config: Value = agent.get("/v1/config")?;
    agent.change("PUT", "/v1/config", &config)
}

#[test]
fn the_api_refuses_what_is_wrong_and_changes_nothing() -> Result<()> {
    let scene = scene()?;
    let agent = &scene.agent;
    let before: Value = agent.get("/v1/config")?;
    let mut other_agent = before.clone();
    other_agent["agent"]["limits"]["services"] = json!(7);
    let cases: [(&str, &str, Value, u16, &str); 11] = [
        (
            "PUT",
            "/v1/services/web",
            json!({ "port": 1 }),
            400,
            "services.web.address",
        ),
        ("PUT", "/v1/services/b d", json!({}), 400, ""),
        (
            "PUT",
            "/v1/services/new",
            json!({
                "address": "203.0.113.9", "port": 0, "protocol": "tcp", "mode": "dsr",
                "pool": "none",
            }),
            422,
            "services.new.port",
        ),
        (
            "PUT",
            "/v1/pools/web/backends/be1",
            json!({ "address": "here" }),
            400,
            "pools.web.backends.be1.address",
        ),
        (
            "PUT",
            "/v1/pools/web/backends/be1/weight",
            json!({ "weight": 70000 }),
            400,
            "pools.web.backends.be1.weight",
        ),
        (
            "PUT",
            "/v1/pools/web/backends/be1/drain",
            json!({ "deadline": "soon" }),
            400,
            "pools.web.backends.be1.deadline",
        ),
        (
            "DELETE",
            "/v1/pools/web",
            Value::Null,
            422,
            "services.web.pool",
        ),
        ("DELETE", "/v1/services/none", Value::Null, 404, ""),
        ("PUT", "/v1/config", other_agent, 422, "agent"),
        ("POST", "/v1/services", json!({}), 405, ""),
        ("GET", "/v2", Value::Null, 404, ""),
    ];
    for (method, path, body, status, field) in cases {
        let path = path.replace(' ', "%20");
        let (found, answer) = agent.request(method, &path, &body.to_string())?;
        assert_eq!(found, status, "{method} {path}: {answer}");
        let answer: Value = serde_json::from_str(&answer).context("the answer is JSON")?;
        assert!(
            !answer["error"].as_str().unwrap_or_default().is_empty(),
            "{answer}"
        );
        if !field.is_empty() {
            assert_eq!(answer["problems"][0]["field"], field, "{answer}");
        }
    }
    assert_eq!(agent.get::<Value>("/v1/config")?, before);
    assert_eq!(scene.ask(scene.vip, 200)?.by_backend.len(), 2);
    Ok(())
}

fn said(output: &Output) -> (bool, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn the_command_line_is_a_client() -> Result<()> {
    let scene = scene()?;
    let weir = |arguments: &[&str]| scene.agent.weir(arguments).map(|output| said(&output));
    let right = |arguments: &[&str]| -> Result<String> {
        let (success, text) = weir(arguments)?;
        ensure!(success, "weir {arguments:?}: {text}");
        Ok(text)
    };
    assert!(right(&["status"])?.contains("XDP native"));
    assert!(right(&["service", "list"])?.contains("maglev"));
    let third = scene.backend(2).to_string();
    right(&["backend", "put", "web/be3", &third, "--weight", "7"])?;
    right(&["backend", "weight", "web/be2", "9"])?;
    right(&["backend", "drain", "web/be1", "--deadline", "5m"])?;
    let listed = right(&["backend", "list"])?;
    let draining = listed
        .lines()
        .find(|line| line.contains("be1"))
        .unwrap_or_default();
    assert!(
        draining.contains("draining") && draining.contains("s left"),
        "{listed}"
    );
    right(&["backend", "undrain", "web/be1"])?;
    let json: Value = serde_json::from_str(&right(&["backend", "list", "--json"])?)?;
    assert_eq!(json["web"]["backends"]["be2"]["config"]["weight"], 9);
    assert_eq!(json["web"]["backends"]["be3"]["config"]["weight"], 7);
    right(&["backend", "remove", "web/be3"])?;
    let vip6 = scene.lab.vips()[0].v6.to_string();
    let (success, text) = weir(&[
        "service",
        "put",
        "six",
        "--address",
        &vip6,
        "--port",
        "80",
        "--mode",
        "nat",
        "--pool",
        "web",
    ])?;
    assert!(!success && text.contains("services.six.pool"), "{text}");
    let (success, text) = weir(&["service", "show", "six"])?;
    assert!(
        !success && text.contains("there is no service \"six\""),
        "{text}"
    );
    let client = SocketAddr::new(scene.lab.client_addresses().v4.into(), 40_000).to_string();
    let text = right(&["explain", "tcp", &client, &scene.vip.to_string()])?;
    assert!(text.contains("service web") && text.contains("open connections go to web/be"));
    let text = right(&["explain", "udp", &client, &scene.vip.to_string()])?;
    assert!(text.contains("the packet is the kernel's"), "{text}");
    let nowhere = ["--admin", "/nowhere.sock", "status"];
    let (success, text) = said(
        &std::process::Command::new(binary())
            .args(nowhere)
            .output()?,
    );
    assert!(!success && text.contains("no agent answers"), "{text}");
    Ok(())
}

/// What `explain` says of a client's connections is what happens to them.
#[test]
fn explain_is_right() -> Result<()> {
    let scene = scene()?;
    let (client, vip) = (scene.lab.client_addresses().v4, scene.vip);
    for port in 50_000..50_020 {
        let question = json!({
            "protocol": "tcp", "client": SocketAddr::new(client.into(), port), "vip": vip,
        });
        let (_, answer) = scene
            .agent
            .request("POST", "/v1/explain", &question.to_string())?;
        let answer: Value = serde_json::from_str(&answer)?;
        let output = scene
            .lab
            .client()
            .command("curl")
            .args(["-s", "-m", "5", "--local-port"])
            .args([port.to_string(), format!("http://{vip}/")])
            .output()?;
        let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert_eq!(answer["backend"], format!("web/{name}"), "{answer}");
        assert_eq!(answer["new_flows"], answer["backend"]);
    }
    Ok(())
}

#[test]
fn configurations_are_checked_before_anything_is_touched() -> Result<()> {
    let scene = scene()?;
    let file = scene.lab.directory().join("wrong.toml");
    std::fs::write(
        &file,
        "[agent]\ninterfaces = [\"lo\"]\n[services.web]\nport = \"x\"\n",
    )?;
    for arguments in [["check"].as_slice(), &["agent", "--config"]] {
        let output = scene
            .lab
            .lb()
            .command(binary())
            .args(arguments)
            .arg(&file)
            .output()?;
        let (success, text) = said(&output);
        let file = file.display().to_string();
        ensure!(
            !success && text.contains(&file) && text.contains("services.web"),
            "{text}"
        );
    }
    // The running agent keeps its socket.
    let config = scene.lab.directory().join("weir.json");
    let second = scene
        .lab
        .lb()
        .command(binary())
        .args(["agent", "--config"])
        .arg(&config)
        .output()?;
    let (success, text) = said(&second);
    assert!(
        !success && text.contains("another agent answers there"),
        "{text}"
    );
    scene.ask(scene.vip, 50)?;
    let (success, text) = said(
        &scene
            .lab
            .lb()
            .command(binary())
            .arg("check")
            .arg(&config)
            .output()?,
    );
    assert!(success && text.contains("valid"), "{text}");
    Ok(())
}

fn programs(lab: &Lab) -> Result<usize> {
    let output = lab.lb().command("ip").args(["-details", "link"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .matches("prog/xdp")
        .count())
}

#[test]
fn signals_detach() -> Result<()> {
    let Scene { mut agent, lab, .. } = scene()?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        assert_eq!(programs(&lab)?, lab.lb_devices().len(), "{signal}");
        let socket = agent.socket().to_owned();
        let pins = agent.pins().to_owned();
        agent.end(signal)?;
        // Who is killed leaves the data path to the next.
        let is_killed = signal == Signal::SIGKILL;
        let attached = if is_killed { lab.lb_devices().len() } else { 0 };
        assert_eq!(
            (programs(&lab)?, pins.exists()),
            (attached, is_killed),
            "{signal}"
        );
        // What a killed agent leaves is no obstacle to the next.
        assert_eq!(socket.exists(), is_killed, "{signal}");
        agent = Agent::start(&lab, &document(&lab))?;
    }
    Ok(())
}

/// What is not for a service is the kernel's: pings, connections to the balancer itself, and
/// plain routing through it, with neighbours that must be found first.
#[test]
fn other_traffic_goes_on() -> Result<()> {
    let scene = scene()?;
    let lab = &scene.lab;
    for namespace in [lab.client(), lab.lb()] {
        namespace
            .command("ip")
            .args(["neigh", "flush", "all"])
            .status()?;
    }
    for address in lab.lb_addresses().both() {
        ping(lab.client(), address)?;
    }
    for address in lab.backends()[0].addresses.both() {
        ping(lab.client(), address)?;
    }
    let here = SocketAddr::new(lab.lb_addresses().v4.into(), 22);
    let listener = lab.lb().run(move || TcpListener::bind(here))??;
    let server = std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(b"SSH-2.0-stand-in\r\n")?;
        Ok(())
    });
    let greeting = lab.client().run(move || -> Result<String> {
        let mut text = String::new();
        TcpStream::connect_timeout(&here, Duration::from_secs(5))?.read_to_string(&mut text)?;
        Ok(text)
    })??;
    assert_eq!(greeting, "SSH-2.0-stand-in\r\n");
    server.join().expect("the server does not panic")?;
    // A backend's own address, which no service has: routed by the kernel, answers included.
    let third = scene.backend(2);
    assert_eq!(scene.ask(third, 20)?.by_backend["be3"], 20);
    Ok(())
}

/// A test that fails leaves nothing behind.
#[test]
fn a_failing_test_cleans_up() -> Result<()> {
    let (send, receive) = std::sync::mpsc::channel();
    let failed = std::thread::spawn(move || {
        let mut scene = scene().expect("the scene");
        let prefix = scene.lab.namespace_prefix();
        let found = (prefix, scene.lab.directory(), scene.agent.process().id());
        send.send(found).expect("somebody listens");
        panic!("as a test does that fails");
    });
    assert!(failed.join().is_err());
    let (prefix, directory, agent) = receive.recv()?;
    let left: Vec<_> = std::fs::read_dir("/run/netns")?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!directory.exists());
    assert!(!std::path::Path::new(&format!("/proc/{agent}")).exists());
    Ok(())
}

/// Puts entries into a map of the agent's until the kernel takes no more; what takes them out
/// again.
fn fill(agent: &mut Agent, name: &str) -> Result<impl FnOnce() -> Result<()> + use<>> {
    let process = agent.process().id();
    let mut found = None;
    for entry in std::fs::read_dir(format!("/proc/{process}/fdinfo"))? {
        let info = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        let id = info.lines().find_map(|line| line.strip_prefix("map_id:"));
        let Some(id) = id.map(|id| id.trim().parse()).transpose()? else {
            continue;
        };
        if MapInfo::from_id(id)?.name_as_str() == Some(name) {
            found = Some(MapData::from_id(id)?);
        }
    }
    let map = found.with_context(|| format!("the agent has no {name}"))?;
    const KEY: usize = size_of::<ServiceKey>();
    let mut map: HashMap<MapData, [u8; KEY], u32> = Map::from_map_data(map)?.try_into()?;
    // No address begins so.
    let key = |number: u8| [[0xff, number], [0; 2]].concat().repeat(KEY / 4);
    let keys = (0..=255).map(move |number| key(number).try_into().expect("the size of a key"));
    let keys: Vec<[u8; KEY]> = keys
        .take_while(|key| map.insert(*key, 0, 0).is_ok())
        .collect();
    ensure!(
        !keys.is_empty() && keys.len() < 256,
        "{} filled it",
        keys.len()
    );
    Ok(move || Ok(keys.iter().try_for_each(|key| map.remove(key))?))
}

/// The configuration, and services' digests and what backends are used by name.
type State = (Value, Vec<(String, String)>, Vec<(String, bool)>);

/// Everything that a change might have left half made.
fn state(agent: &Agent) -> Result<State> {
    let services = agent.services()?.into_iter();
    let services = services.map(|(name, view)| (name, view.counters.digest));
    let pools = agent.pools()?;
    let backends = pools.values().flat_map(|pool| &pool.backends);
    let backends = backends.map(|(name, view)| (name.clone(), view.in_use));
    Ok((
        agent.get("/v1/config")?,
        services.collect(),
        backends.collect(),
    ))
}

/// The kernel refuses a write in the middle of a change: the answer names the map, nothing of the
/// change stays, others can be made, and the same when there is room.
#[test]
fn what_the_kernel_refuses_changes_nothing() -> Result<()> {
    let mut scene = scene_with(|document| {
        document["agent"]["limits"] = json!({ "backends": 10, "services": 10 });
    })?;
    let third = &scene.lab.backends()[2];
    let at = |port: u16| json!({ "address": SocketAddr::new(third.addresses.v4.into(), port) });
    let _more = [PORT + 1, PORT + 2].map(|port| servers::nginx(third, port));
    let other = json!({ "backends": { "other": at(PORT + 1) } });
    scene.agent.change("PUT", "/v1/pools/other", &other)?;
    let service = |port: u16| {
        json!({
            "address": scene.vip.ip(), "port": port, "protocol": "tcp", "mode": "nat",
            "pool": "other",
        })
    };
    let second = json!({ "address": scene.backend(1) });
    let pool = json!({ "backends": { "be2": second, "be4": at(PORT + 2) } });
    for (map, path, body) in [
        ("RETURNS", "/v1/pools/web/backends/be3", at(PORT)),
        ("RETURNS", "/v1/pools/web", pool),
        ("SERVICES_BY_KEY", "/v1/services/new", service(PORT + 1)),
        ("RETURNS", "/v1/services/new", service(PORT + 1)),
        ("RETURNS", "/v1/services/web", service(PORT)),
    ] {
        let before = state(&scene.agent)?;
        let empty = fill(&mut scene.agent, map)?;
        let (status, answer) = scene.agent.request("PUT", path, &body.to_string())?;
        ensure!(
            status == 500 && answer.contains(map),
            "{path}: {status} {answer}"
        );
        assert_eq!(state(&scene.agent)?, before, "{path}");
        scene.ask(scene.vip, 20)?;
        // What needs no room is not held up.
        for weight in [50, 100] {
            let path = "/v1/pools/web/backends/be1/weight";
            scene
                .agent
                .change("PUT", path, &json!({ "weight": weight }))
                .context("after a refusal")?;
        }
        assert_eq!(state(&scene.agent)?, before, "{path}");
        empty()?;
        scene.agent.change("PUT", path, &body)?;
        scene.ask(scene.vip, 20)?;
        // As before, for the next.
        match path.starts_with("/v1/services/new") {
            true => scene.agent.change("DELETE", path, &Value::Null)?,
            false => scene.agent.change("PUT", "/v1/config", &before.0)?,
        }
        assert_eq!(state(&scene.agent)?, before, "{path}");
    }
    Ok(())
}
