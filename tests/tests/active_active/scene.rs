//! The network, and starting and ending nodes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Plan, Process, Wiring, retry, servers};
use lb_userspace::config::{Config, from_toml};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::agent::{Agent, PATIENCE};

use crate::daemons::{bird, example, routing};

/// Modes, and the port of each one's services and servers: a backend of a `nat` service has but
/// one.
pub(crate) const MODES: [(&str, u16); 3] = [("nat", 7001), ("dsr", 7002), ("full-nat", 7003)];
/// Backends at first; there is one more.
const MEMBERS: usize = 3;

pub(crate) struct Scene {
    // In the order in which they end.
    pub(crate) nodes: Vec<Option<Node>>,
    _router: Process,
    _echo: Vec<servers::Echo>,
    members: usize,
    pub(crate) lab: Lab,
}

pub(crate) struct Node {
    pub(crate) agent: Agent,
    bird: Process,
}

impl Scene {
    /// Three nodes, to all of which the router has a way.
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::new(&Plan {
            wiring: Wiring::Anycast,
            backends: MEMBERS as u8 + 1,
            vips: 1,
            backends_hold_vips: true,
        })?;
        let echo = lab.backends().iter().flat_map(|be| {
            let ports = MODES.iter().map(|(_, port)| *port);
            ports.map(move |port| servers::echo(be, port))
        });
        let echo = echo.collect::<Result<_>>()?;
        std::fs::write(lab.directory().join("key"), "5eed".repeat(16))?;
        let router = lab.router().context("there is a router")?;
        let router = bird(&lab, router, "router", &example(&lab, 0, "router.conf")?)?;
        let mut scene = Self {
            nodes: vec![None, None, None],
            _router: router,
            _echo: echo,
            members: MEMBERS,
            lab,
        };
        for node in 0..3 {
            scene.start(node)?;
        }
        scene.wait_for_ways(3)?;
        Ok(scene)
    }

    pub(crate) fn vip(&self, v4: bool) -> IpAddr {
        self.lab.vips()[0].both()[usize::from(!v4)]
    }

    /// Starts a node that is not there.
    pub(crate) fn start(&mut self, node: usize) -> Result<()> {
        let balancer = &self.lab.balancers()[node];
        self.switch(&format!("link set {} up", balancer.name))?;
        let config = example(&self.lab, node, "node.conf")?;
        let bird = bird(&self.lab, &balancer.namespace, &balancer.name, &config)?;
        let agent = Agent::start_at(&self.lab, balancer, &self.document(node)?)?;
        self.nodes[node] = Some(Node { agent, bird });
        Ok(())
    }

    /// Cuts a node's link and ends everything on it: its power has failed.
    pub(crate) fn power_off(&mut self, node: usize) -> Result<()> {
        self.switch(&format!(
            "link set {} down",
            self.lab.balancers()[node].name
        ))?;
        let pins = self.kill(node)?;
        std::fs::remove_dir_all(pins)?;
        Ok(())
    }

    /// Kills the agent and BIRD; the data path stays. Where its pins are.
    pub(crate) fn kill(&mut self, node: usize) -> Result<PathBuf> {
        let mut killed = self.nodes[node].take().context("it is there")?;
        killed.bird.signal(Signal::SIGKILL)?;
        killed.agent.process().signal(Signal::SIGKILL)?;
        Ok(killed.agent.pins().to_owned())
    }

    /// Has a node's agent end; its routing daemon goes on.
    pub(crate) fn drain(&mut self, node: usize) -> Result<()> {
        let agent = self.agent_mut(node)?;
        agent.process().signal(Signal::SIGTERM)
    }

    /// Waits for what [`Scene::drain`] began, and ends the routing daemon as well.
    pub(crate) fn wait_until_drained(&mut self, node: usize) -> Result<()> {
        retry(PATIENCE, || {
            let agent = self.agent_mut(node)?;
            ensure!(!agent.process().is_running(), "it goes on: {}", agent.log());
            Ok(())
        })?;
        self.nodes[node] = None;
        Ok(())
    }

    fn agent_mut(&mut self, node: usize) -> Result<&mut Agent> {
        let node = self.nodes[node].as_mut().context("it is there")?;
        Ok(&mut node.agent)
    }

    pub(crate) fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.nodes.iter().flatten().map(|node| &node.agent)
    }

    /// Whether connections that others have opened go through a node, in every mode.
    pub(crate) fn ensure_others_landed(&self, node: usize) -> Result<()> {
        let node = self.nodes[node].as_ref().context("it is there")?;
        for (name, service) in node.agent.services()? {
            let seen = service.counters.traffic;
            ensure!(
                seen.packets > 0 && seen.connections == 0,
                "{name}: {seen:?}"
            );
        }
        Ok(())
    }

    /// Adds the backend that is left to all pools of a node.
    pub(crate) fn add_backend(&mut self, node: usize) -> Result<()> {
        let added = &self.lab.backends()[MEMBERS];
        let node = self.nodes[node].as_ref().context("it is there")?;
        for (_, name, v4, port) in services() {
            let path = format!("/v1/pools/{name}/backends/{}", added.name);
            let address = SocketAddr::new(added.addresses.both()[usize::from(!v4)], port);
            (node.agent).change("PUT", &path, &json!({ "address": address }))?;
        }
        self.members = MEMBERS + 1;
        Ok(())
    }

    /// Waits until the backend that was added takes connections in all pools of a node.
    pub(crate) fn wait_until_used(&self, node: usize) -> Result<()> {
        let names: Vec<&str> = self.lab.backends().iter().map(|be| &*be.name).collect();
        let node = self.nodes[node].as_ref().context("it is there")?;
        services().try_for_each(|(_, pool, ..)| node.agent.wait_for(&pool, &names))
    }

    /// Waits until the router has as many ways to both addresses of the VIP; how long it took.
    pub(crate) fn wait_for_ways(&self, count: usize) -> Result<Duration> {
        let started = Instant::now();
        retry(PATIENCE, || {
            let ways = [self.ways(true)?, self.ways(false)?];
            let logs = || self.agents().map(Agent::log).collect::<Vec<_>>().join("\n");
            ensure!(
                ways == [count; 2],
                "{ways:?} ways, not {count}\n{}\n{}",
                logs(),
                routing(&self.lab, "router")?
            );
            Ok(())
        })?;
        Ok(started.elapsed())
    }

    fn ways(&self, v4: bool) -> Result<usize> {
        let router = self.lab.router().context("there is a router")?;
        let family = if v4 { "-4" } else { "-6" };
        let vip = self.vip(v4).to_string();
        let mut ip = router.command("ip");
        let shown = ip.args([family, "route", "show", &vip]).output()?;
        let shown = String::from_utf8(shown.stdout)?;
        Ok(shown
            .split_whitespace()
            .filter(|word| *word == "via")
            .count())
    }

    /// The example's configuration, with services of every mode and family.
    fn document(&self, node: usize) -> Result<Value> {
        let config: Config = from_toml(example(&self.lab, node, "weir.toml")?.as_bytes())?;
        let mut document = serde_json::to_value(&config)?;
        document["ha"]["sync"]["key_file"] = json!(self.lab.directory().join("key"));
        let groups = document["ha"]["groups"].as_object_mut();
        for (name, group) in groups.into_iter().flatten() {
            // The example's is the first node's; an address has the same number on all.
            match name
                .strip_prefix("source")
                .map(|rest| rest.as_bytes()[0] - b'1')
            {
                Some(place) => group["vrid"] = json!(11 + (node + usize::from(place)) % 3),
                None => group["priority"] = json!(200 - 50 * node),
            }
        }
        document["pools"] = json!({});
        document["services"] = json!({});
        for (mode, name, v4, port) in services() {
            let backends = self.lab.backends().iter().take(self.members).map(|be| {
                let address = be.addresses.both()[usize::from(!v4)];
                let address = SocketAddr::new(address, port);
                (be.name.clone(), json!({ "address": address }))
            });
            let mut backends: BTreeMap<String, Value> = backends.collect();
            // It has never been there: nobody listens.
            let nowhere = self.lab.backends()[0].addresses.both()[usize::from(!v4)];
            let nowhere = SocketAddr::new(nowhere, port + 100);
            if mode != "dsr" {
                backends.insert("nowhere".to_owned(), json!({ "address": nowhere }));
            }
            let check = json!({ "type": "tcp", "interval": "1s", "rise": 1, "fall": 3 });
            document["pools"][&name] = json!({
                "backends": backends, "health_check": check,
            });
            document["services"][&name] = json!({
                "address": self.vip(v4), "port": port, "protocol": "tcp", "mode": mode,
                "pool": name,
            });
        }
        Ok(document)
    }

    /// Runs `ip` on the segment.
    fn switch(&self, arguments: &str) -> Result<()> {
        let lan = self.lab.lan().context("there is a segment")?;
        lan.ip(&format!("{arguments}\n"))
    }
}

/// Mode, name, whether of IPv4, and port of each service; its pool has its name.
fn services() -> impl Iterator<Item = (&'static str, String, bool, u16)> {
    let families = [("v4", true), ("v6", false)];
    MODES.into_iter().flat_map(move |(mode, port)| {
        families.map(|(family, v4)| (mode, format!("{mode}-{family}"), v4, port))
    })
}
