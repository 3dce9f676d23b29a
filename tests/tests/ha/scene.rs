//! Two balancers on one segment that share addresses.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Balancer, Lab, Plan, Wiring, retry, servers};
use lb_userspace::ha::{GroupView, Role};
use serde_json::{Value, json};
use weir_tests::agent::{Agent, PATIENCE};

/// Where the echo servers listen.
pub(crate) const PORT: u16 = 7000;
/// The virtual router id of both families.
pub(crate) const VRID: u8 = 51;

/// The network, and what is behind it.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    _echo: Vec<servers::Echo>,
}

impl Scene {
    pub(crate) fn new() -> Result<Self> {
        Self::for_mode("nat")
    }

    /// With backends as services of a mode need them.
    pub(crate) fn for_mode(mode: &str) -> Result<Self> {
        Self::wired(Wiring::Pair, mode == "dsr")
    }

    /// With the client on one segment and the backends on another.
    pub(crate) fn between() -> Result<Self> {
        Self::wired(Wiring::PairBetween, false)
    }

    fn wired(wiring: Wiring, backends_hold_vips: bool) -> Result<Self> {
        let lab = Lab::new(&Plan {
            wiring,
            backends: 2,
            backends_hold_vips,
            ..Plan::default()
        })?;
        let echo = lab.backends().iter().map(|be| servers::echo(be, PORT));
        let echo = echo.collect::<Result<_>>()?;
        Ok(Self { lab, _echo: echo })
    }

    pub(crate) fn balancer(&self, number: usize) -> &Balancer {
        &self.lab.balancers()[number]
    }

    /// The addresses that move: the VIP, and the gateways of the client and the backends.
    pub(crate) fn shared(&self, v4: bool) -> Vec<IpAddr> {
        let gateways = [self.lab.lb_addresses(), self.lab.backends()[0].gateway];
        let pairs = gateways.into_iter().chain([self.lab.vips()[0]]);
        pairs.map(|pair| pair.both()[usize::from(!v4)]).collect()
    }

    pub(crate) fn vip(&self, v4: bool) -> SocketAddr {
        SocketAddr::new(self.lab.vips()[0].both()[usize::from(!v4)], PORT)
    }

    /// The configuration of one: services of both families, and a group for each, and for each on
    /// the backends' segment if that is another; all fail over together. `group` is added to all.
    pub(crate) fn document(&self, group: &Value) -> Value {
        let mut document = json!({});
        for (family, v4) in [("v4", true), ("v6", false)] {
            let backends = self.lab.backends().iter().map(|be| {
                let address = be.addresses.both()[usize::from(!v4)];
                (
                    be.name.clone(),
                    json!({ "address": SocketAddr::new(address, PORT) }),
                )
            });
            let backends: BTreeMap<String, Value> = backends.collect();
            document["pools"][family] = json!({ "backends": backends });
            for protocol in ["tcp", "udp"] {
                document["services"][format!("{protocol}-{family}")] = json!({
                    "address": self.vip(v4).ip(), "port": PORT, "protocol": protocol,
                    "mode": "nat", "pool": family,
                });
            }
            let mut here = self.shared(v4);
            let mut groups = vec![(family.to_owned(), "lan")];
            let mut there = Vec::new();
            if self.lab.lb_devices().len() > 1 {
                let gateway = self.lab.backends()[0].gateway.both()[usize::from(!v4)];
                here.retain(|address| *address != gateway);
                there.push(gateway);
                groups.push((format!("back-{family}"), "back"));
            }
            for ((name, interface), addresses) in groups.into_iter().zip([here, there]) {
                let mut all = json!({
                    "vrid": VRID, "interface": interface, "addresses": addresses, "sync": "pair",
                });
                for (key, value) in group.as_object().into_iter().flatten() {
                    all[key] = value.clone();
                }
                document["ha"]["groups"][name] = all;
            }
        }
        document
    }

    /// Starts an agent.
    pub(crate) fn start(&self, number: usize, group: &Value) -> Result<Agent> {
        Agent::start_at(&self.lab, self.balancer(number), &self.document(group))
    }

    /// The shared addresses that a balancer has.
    pub(crate) fn held(&self, number: usize) -> Result<Vec<IpAddr>> {
        let namespace = &self.balancer(number).namespace;
        let listed = namespace.command("ip").args(["-o", "addr"]).output()?;
        let listed = String::from_utf8(listed.stdout)?;
        let words = listed.split_whitespace();
        let addresses = words.filter_map(|word| word.split('/').next()?.parse().ok());
        let shared = [self.shared(true), self.shared(false)].concat();
        Ok(addresses
            .filter(|address| shared.contains(address))
            .collect())
    }

    /// Waits until this balancer has all shared addresses and the other none.
    pub(crate) fn wait_for_holder(&self, number: usize) -> Result<()> {
        retry(PATIENCE, || {
            let (ours, theirs) = (self.held(number)?, self.held(1 - number)?);
            ensure!(
                ours.len() == 6 && theirs.is_empty(),
                "{number} has {ours:?}, the other {theirs:?}"
            );
            Ok(())
        })
    }

    /// Runs `ip` on the segment.
    pub(crate) fn switch(&self, arguments: &str) -> Result<()> {
        let lan = self.lab.lan().context("there is no segment")?;
        let mut ip = lan.command("ip");
        let status = ip.args(arguments.split(' ')).status()?;
        ensure!(status.success(), "ip {arguments}");
        Ok(())
    }

    /// Parts a balancer from the others, whose link stays up all the same.
    pub(crate) fn part(&self, number: usize) -> Result<()> {
        self.switch(&format!("link set {} nomaster", self.balancer(number).name))
    }

    pub(crate) fn heal(&self, number: usize) -> Result<()> {
        let name = &self.balancer(number).name;
        self.switch(&format!("link set {name} master bridge"))
    }
}

/// All groups of an agent.
pub(crate) fn groups(agent: &Agent) -> Result<BTreeMap<String, GroupView>> {
    agent.get("/v1/ha")
}

/// Waits until all groups of an agent have this role.
pub(crate) fn wait_for_role(agent: &Agent, role: Role) -> Result<()> {
    retry(PATIENCE, || {
        let groups = groups(agent)?;
        match groups.values().all(|group| group.role == role) {
            true => Ok(()),
            false => bail!("not all are {role}: {groups:#?}\n{}", agent.log()),
        }
    })
}

/// A group's interval, in milliseconds, with preemption off.
pub(crate) fn every(millis: u64) -> Value {
    json!({ "advert_interval": format!("{millis}ms") })
}

/// How long others may take to notice, by arithmetic, at priority 100.
pub(crate) fn bound(millis: u64) -> Duration {
    Duration::from_millis(millis).mul_f64(3.0 + 156.0 / 256.0)
}
