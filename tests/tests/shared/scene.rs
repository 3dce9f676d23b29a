//! Balancers that take their configuration from an etcd on the first backend.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Lab, Plan, Wiring, retry,
    servers::{self, Daemon},
};
use lb_userspace::shared::SharedView;
use serde_json::{Value, json};
use weir_tests::agent::{Agent, PATIENCE, binary, pool};

/// Where the echo servers listen.
pub(crate) const PORT: u16 = 7000;
const ETCD: u16 = 2379;

pub(crate) struct Scene {
    pub(crate) etcd: Daemon,
    /// The rest of a cluster.
    pub(crate) members: Vec<Daemon>,
    _echo: Vec<servers::Echo>,
    pub(crate) lab: Lab,
}

impl Scene {
    pub(crate) fn new() -> Result<Self> {
        Self::with_etcd(&[])
    }

    pub(crate) fn with_etcd(arguments: &[&str]) -> Result<Self> {
        Self::wired(Wiring::Pair, arguments)
    }

    /// With three balancers.
    pub(crate) fn of_three() -> Result<Self> {
        Self::wired(Wiring::Anycast, &[])
    }

    /// With a pair of balancers, and an etcd on each backend, which are a cluster.
    pub(crate) fn of_cluster() -> Result<Self> {
        let lab = Lab::new(&Plan {
            wiring: Wiring::Pair,
            backends: 3,
            ..Plan::default()
        })?;
        let backends = lab.backends();
        let peer = |be: &lab::Backend| format!("http://{}:{}", be.addresses.v4, ETCD + 1);
        let all = backends.iter();
        let all: Vec<_> = all.map(|be| format!("{}={}", be.name, peer(be))).collect();
        let all = all.join(",");
        let member = |be: &lab::Backend| {
            let peer = peer(be);
            let arguments = [
                ["--name", &be.name],
                ["--listen-peer-urls", &peer],
                ["--initial-advertise-peer-urls", &peer],
                ["--initial-cluster", &all],
            ];
            servers::etcd(be, ETCD, arguments.as_flattened())
        };
        let echo = backends.iter().map(|be| servers::echo(be, PORT));
        Ok(Self {
            etcd: member(&backends[0])?,
            members: vec![member(&backends[1])?, member(&backends[2])?],
            _echo: echo.collect::<Result<_>>()?,
            lab,
        })
    }

    fn wired(wiring: Wiring, arguments: &[&str]) -> Result<Self> {
        let lab = Lab::new(&Plan {
            wiring,
            backends: 3,
            ..Plan::default()
        })?;
        let echo = lab.backends().iter().map(|be| servers::echo(be, PORT));
        let echo = echo.collect::<Result<_>>()?;
        let etcd = servers::etcd(&lab.backends()[0], ETCD, arguments)?;
        Ok(Self {
            etcd,
            members: Vec::new(),
            _echo: echo,
            lab,
        })
    }

    pub(crate) fn location(&self) -> String {
        self.at("etcd", "")
    }

    pub(crate) fn at(&self, scheme: &str, user: &str) -> String {
        let hosts = self.lab.backends().iter().take(1 + self.members.len());
        let hosts = hosts.map(|be| format!("{}:{ETCD}", be.addresses.v4));
        let hosts: Vec<_> = hosts.collect();
        format!("{scheme}://{user}{}/weir/front", hosts.join(","))
    }

    /// A service and its pool.
    pub(crate) fn document(&self) -> Value {
        let backends = self.lab.backends().iter();
        let address = |be: &lab::Backend| SocketAddr::new(be.addresses.v4.into(), PORT);
        let vip = self.lab.vips()[0].v4;
        json!({
            "pools": { "echo": pool(backends.map(|be| (&*be.name, address(be))), "tcp") },
            "services": { "echo": {
                "address": vip, "port": PORT, "protocol": "tcp", "mode": "nat", "pool": "echo",
            } },
        })
    }

    /// Puts a document into etcd, as an operator does; what is said of it.
    pub(crate) fn push(&self, document: &str, location: &str) -> Result<Result<String, String>> {
        let file = self.lab.directory().join("push.json");
        std::fs::write(&file, document)?;
        let mut weir = self.lab.balancers()[0].namespace.command(binary());
        let arguments = ["config", "push", "--replace"];
        let output = weir.args(arguments).arg(&file).arg(location).output()?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        })
    }

    /// The same, of a good one.
    pub(crate) fn seed(&self) -> Result<()> {
        let pushed = self.push(&self.document().to_string(), &self.location())?;
        pushed.map(drop).map_err(anyhow::Error::msg)
    }

    pub(crate) fn start(&self, number: usize) -> Result<Agent> {
        self.start_with(number, &json!({}))
    }

    /// `local`: what is the node's own.
    pub(crate) fn start_with(&self, number: usize, local: &Value) -> Result<Agent> {
        let balancer = &self.lab.balancers()[number];
        Agent::start_sharing(&self.lab, balancer, local, &self.location())
    }

    /// What etcd has.
    pub(crate) fn in_etcd(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&self.etcdctl(
            &["get", "--print-value-only"],
            &["/weir/front"],
        )?)?)
    }

    /// Runs etcdctl where etcd runs.
    pub(crate) fn etcdctl(&self, verb: &[&str], arguments: &[&str]) -> Result<Vec<u8>> {
        let host = &self.lab.backends()[0];
        let mut command: Command = host.namespace.command("etcdctl");
        command.env("ETCDCTL_API", "3");
        command.args(verb);
        command.args([
            "--endpoints",
            &format!("http://{}:{ETCD}", host.addresses.v4),
        ]);
        command.arg("--").args(arguments);
        let output = command.output()?;
        ensure!(
            output.status.success(),
            "etcdctl: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }

    /// What a node sends to a backend is lost from now on, without a word; or is not any more.
    pub(crate) fn set_cut(&self, node: usize, backend: usize, cut: bool) -> Result<()> {
        let address = self.lab.backends()[backend].addresses.v4;
        let line = match cut {
            true => {
                format!("neigh replace {address} lladdr 02:00:00:00:00:99 nud permanent dev lan")
            }
            false => format!("neigh del {address} dev lan"),
        };
        let node = &self.lab.balancers()[node].namespace;
        node.ip(&format!("{line}\n"))
    }

    /// The copy on disk of a node.
    pub(crate) fn copy(&self, number: usize) -> PathBuf {
        let name = &self.lab.balancers()[number].name;
        self.lab.directory().join(format!("{name}.json"))
    }
}

pub(crate) fn view(agent: &Agent) -> Result<SharedView> {
    agent
        .get::<Option<SharedView>>("/v1/shared")?
        .context("nothing is shared")
}

/// Waits until an agent shows what is asked for.
pub(crate) fn wait(agent: &Agent, asked: impl Fn(&SharedView) -> bool) -> Result<SharedView> {
    retry(PATIENCE, || {
        let view = view(agent)?;
        ensure!(asked(&view), "{view:#?}\n{}", agent.log());
        Ok(view)
    })
}

/// Tables by service.
pub(crate) fn digests(agent: &Agent) -> Result<BTreeMap<String, String>> {
    let services = agent.services()?.into_iter();
    Ok(services
        .map(|(name, view)| (name, view.counters.digest))
        .collect())
}

/// Waits until all agents have the same tables as the first, which are not as they were.
pub(crate) fn wait_until_same(
    agents: &[&Agent],
    before: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    retry(PATIENCE, || {
        let all = agents.iter().map(|agent| digests(agent));
        let all = all.collect::<Result<Vec<_>>>()?;
        ensure!(
            all.iter()
                .all(|digests| *digests == all[0] && digests != before),
            "{all:?}, before: {before:?}\n{}",
            agents[agents.len() - 1].log()
        );
        Ok(all[0].clone())
    })
}
