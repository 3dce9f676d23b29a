//! A lab with echo servers behind Weir: TCP and UDP services on one VIP, and web servers if wanted.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    thread,
};

use anyhow::{Context as _, Result};
use lab::{Lab, Plan, Wiring, servers};
use lb_userspace::state::BackendView;
use serde_json::{Value, json};

use crate::{
    agent::{Agent, pool},
    conversations::Conversations,
    held::{Datagrams, Held},
};

/// The echo servers' port.
pub const ECHO: u16 = 7;
/// The web servers' port.
pub const WEB: u16 = 80;

/// What a scene is to be.
#[derive(Clone)]
pub struct Setup<'a> {
    /// `nat`, `full-nat` or `dsr`.
    pub mode: &'a str,
    /// Whether clients speak IPv6.
    pub ipv6: bool,
    /// Servers that there are.
    pub backends: u8,
    /// How many of them are in the pools at first.
    pub members: usize,
    /// How the pools of echo servers are checked; empty: not at all.
    pub check: &'a str,
    /// Whether there are web servers and a service for them.
    pub web: bool,
    /// Settings of all services.
    pub service: Value,
    /// More settings of UDP services.
    pub udp: Value,
    /// Settings of all pools.
    pub pool: Value,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            mode: "nat",
            ipv6: false,
            backends: 3,
            members: 3,
            check: "",
            web: false,
            service: json!({}),
            udp: json!({}),
            pool: json!({}),
        }
    }
}

/// It is there. The services are `echo`, `udp` and `web`, and so are their pools.
pub struct Scene {
    // In the order in which they end.
    /// The agent.
    pub agent: Agent,
    /// The echo servers.
    pub echo: Vec<servers::Echo>,
    _web: Vec<servers::Daemon>,
    /// The VIP.
    pub vip: IpAddr,
    mode: String,
    /// The lab.
    pub lab: Lab,
}

impl Scene {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// What could not be made.
    pub fn new(setup: &Setup<'_>) -> Result<Self> {
        Self::with_agent(setup, &json!({}))
    }

    /// Makes it, with settings of the agent's own.
    ///
    /// # Errors
    ///
    /// What could not be made.
    pub fn with_agent(setup: &Setup<'_>, agent: &Value) -> Result<Self> {
        let dsr = setup.mode == "dsr";
        let lab = Lab::new(&Plan {
            wiring: if dsr { Wiring::Segment } else { Wiring::Routed },
            backends: setup.backends,
            vips: 1,
            backends_hold_vips: dsr,
        })?;
        let backends = || lab.backends().iter();
        let echo = backends().map(|backend| servers::echo(backend, ECHO));
        let echo = echo.collect::<Result<Vec<_>>>()?;
        let web = backends().filter(|_| setup.web);
        let web = web.map(|backend| servers::nginx(backend, WEB));
        let web = web.collect::<Result<Vec<_>>>()?;
        let vip = lab.vips()[0].both()[usize::from(setup.ipv6)];
        let mut document = json!({
            "agent": { "full_nat": { "addresses": lab.lb_addresses().both() } },
        });
        merge(&mut document["agent"], agent);
        let kinds = [
            ("echo", ECHO, "tcp"),
            ("udp", ECHO, "udp"),
            ("web", WEB, "tcp"),
        ];
        for (name, port, protocol) in kinds.into_iter().take(2 + usize::from(setup.web)) {
            let mut service = service(vip, setup.mode, name, port, protocol);
            merge(&mut service, &setup.service);
            if protocol == "udp" {
                merge(&mut service, &setup.udp);
            }
            document["services"][name] = service;
            let members = backends().take(setup.members);
            let members = members.map(|backend| (&*backend.name, address(backend, vip, port)));
            let check = if name == "web" { "" } else { setup.check };
            let mut pool = pool(members, check);
            if let Some(check) = pool.get_mut("health_check") {
                // UDP has no check of its own here: the same server answers TCP.
                check["port"] = json!(ECHO);
            }
            merge(&mut pool, &setup.pool);
            document["pools"][name] = pool;
        }
        let agent = Agent::start(&lab, &document)?;
        let scene = Self {
            agent,
            echo,
            _web: web,
            vip,
            mode: setup.mode.to_owned(),
            lab,
        };
        let names: Vec<_> = (0..setup.members).map(|place| scene.name(place)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        scene.agent.wait_for("echo", &names)?;
        scene.agent.wait_for("udp", &names)?;
        Ok(scene)
    }

    /// The VIP with a port.
    pub fn target(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip, port)
    }

    /// A backend's name, by its place in the lab.
    pub fn name(&self, place: usize) -> String {
        self.lab.backends()[place].name.clone()
    }

    /// A backend's address, by its place in the lab.
    pub fn address(&self, place: usize, port: u16) -> SocketAddr {
        address(&self.lab.backends()[place], self.vip, port)
    }

    /// A pool of backends, by their places in the lab, for `echo`; none is checked.
    pub fn pool(&self, places: Range<usize>) -> Value {
        let backends = &self.lab.backends()[places];
        let members = backends.iter();
        let members = members.map(|backend| (&*backend.name, address(backend, self.vip, ECHO)));
        pool(members, "")
    }

    /// Opens connections to `echo` that go on talking.
    ///
    /// # Errors
    ///
    /// They could not be opened.
    pub fn talk(&self, count: u64) -> Result<Conversations> {
        let pause = std::time::Duration::from_millis(100);
        Conversations::start(self.lab.client(), self.target(ECHO), count, pause)
    }

    /// Opens connections to `echo` that speak when told to.
    ///
    /// # Errors
    ///
    /// They could not be opened.
    pub fn hold(&self, count: usize) -> Result<Held> {
        Held::open(self.lab.client(), self.target(ECHO), count)
    }

    /// Flows of datagrams to `udp`.
    ///
    /// # Errors
    ///
    /// They could not be made.
    pub fn datagrams(&self, count: usize) -> Result<Vec<Datagrams>> {
        let flows = (0..count).map(|_| Datagrams::new(self.lab.client(), self.target(ECHO)));
        flows.collect()
    }

    /// Makes the same change to a backend of several pools.
    ///
    /// # Errors
    ///
    /// It was refused.
    pub fn change(
        &self,
        pools: &[&str],
        method: &str,
        backend: &str,
        suffix: &str,
        body: &Value,
    ) -> Result<()> {
        for pool in pools {
            let path = format!("/v1/pools/{pool}/backends/{backend}{suffix}");
            self.agent.change(method, &path, body)?;
        }
        Ok(())
    }

    /// Adds a backend, by its place in the lab, to a pool.
    ///
    /// # Errors
    ///
    /// It was refused.
    pub fn add(&self, pool: &str, place: usize) -> Result<()> {
        let port = if pool == "web" { WEB } else { ECHO };
        let body = json!({ "address": self.address(place, port) });
        self.change(&[pool], "PUT", &self.name(place), "", &body)
    }

    /// Sets a service anew, with these settings and none else.
    ///
    /// # Errors
    ///
    /// It was refused.
    pub fn set_service(&self, name: &str, settings: &Value) -> Result<()> {
        let (port, protocol) = match name {
            "web" => (WEB, "tcp"),
            "udp" => (ECHO, "udp"),
            _ => (ECHO, "tcp"),
        };
        let mut body = service(self.vip, &self.mode, name, port, protocol);
        merge(&mut body, settings);
        self.agent
            .change("PUT", &format!("/v1/services/{name}"), &body)
    }

    /// Cuts a backend off, for good: nobody but Weir can speak for it.
    ///
    /// # Errors
    ///
    /// `ip` fails.
    pub fn cut(&self, place: usize) -> Result<()> {
        let mut command = self.lab.backends()[place].namespace.command("ip");
        let status = command.args(["link", "set", "eth0", "down"]).status()?;
        anyhow::ensure!(status.success(), "ip link set eth0 down: {status}");
        Ok(())
    }

    /// A backend of the pool `echo`.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn view(&self, backend: &str) -> Result<BackendView> {
        self.agent
            .get(&format!("/v1/pools/echo/backends/{backend}"))
    }
}

fn service(vip: IpAddr, mode: &str, pool: &str, port: u16, protocol: &str) -> Value {
    json!({ "address": vip, "port": port, "protocol": protocol, "mode": mode, "pool": pool })
}

fn address(backend: &lab::Backend, vip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(backend.addresses.both()[usize::from(vip.is_ipv6())], port)
}

fn merge(into: &mut Value, settings: &Value) {
    for (key, value) in settings.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

/// Runs a test in every mode at once, each in a lab of its own: most of it is waiting.
///
/// # Errors
///
/// The first mode's that has one.
pub fn in_every_mode(test: impl Fn(&str) -> Result<()> + Sync) -> Result<()> {
    let test = &test;
    thread::scope(|scope| {
        let modes = ["nat", "full-nat", "dsr"].map(|mode| {
            let run = move || test(mode).with_context(|| mode.to_owned());
            (mode, scope.spawn(run))
        });
        for (mode, run) in modes {
            match run.join() {
                Ok(result) => result?,
                Err(_) => panic!("{mode}: see above"),
            }
        }
        Ok(())
    })
}
