//! Who balances connections between real clients and servers.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use frames::Relay;
use lab::{
    Lab, Namespace, Plan, Process, Wiring,
    load::{Load, Work},
    retry,
    servers::{self, Daemon},
};
use serde_json::json;
use weir_tests::cpu;

use super::{
    contender::{DNAT, DSR, FULL_NAT, MASQUERADE, NAT, RELAY},
    nftables, proxies,
};
use crate::{agent, napi, pinned::run};

const PATIENCE: Duration = Duration::from_secs(20);
const PORT: u16 = 80;

pub(crate) const HAPROXY: &str = "HAProxy, TCP";
pub(crate) const NGINX: &str = "nginx stream";

/// One of those that are compared, in a network of its own.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// Where the client connects to.
    pub(crate) target: SocketAddr,
    /// The kernel's threads that poll the balancer's NICs.
    threads: Vec<u32>,
    process: Option<Process>,
    _relays: Vec<Relay>,
    _servers: Vec<Daemon>,
    // Last: what runs in it has ended by then.
    lab: Lab,
}

/// All of them, seen to be working.
pub(crate) fn all() -> Result<Vec<Contender>> {
    let mut all = vec![relay()?];
    for (name, mode) in [(DSR, "dsr"), (NAT, "nat"), (FULL_NAT, "full-nat")] {
        all.push(weir(name, mode)?);
    }
    for (name, masquerade) in [(DNAT, false), (MASQUERADE, true)] {
        all.push(Contender::start(name, &routed(2), |lab, vip| {
            let backends = lab.backends().iter();
            let backends = backends.map(|backend| backend.addresses.v4.into());
            nftables::balance(lab.lb(), "tcp", vip, backends, masquerade)?;
            Ok(None)
        })?);
    }
    for (name, proxy) in [
        (
            HAPROXY,
            proxies::haproxy as fn(&Lab, SocketAddr) -> Result<Process>,
        ),
        (NGINX, proxies::nginx_stream),
    ] {
        all.push(Contender::start(name, &routed(2), |lab, vip| {
            run(lab.lb(), &format!("ip addr add {}/32 dev lo", vip.ip()))?;
            // A connection of its own for each of the client's.
            run(lab.lb(), "sysctl -qw net.ipv4.tcp_tw_reuse=1")?;
            let ports = ["-qw", "net.ipv4.ip_local_port_range=1024 65535"];
            ensure!(lab.lb().command("sysctl").args(ports).status()?.success());
            Ok(Some(proxy(lab, vip)?))
        })?);
    }
    Ok(all)
}

fn routed(backends: u8) -> Plan {
    Plan {
        backends,
        ..Plan::default()
    }
}

fn weir(name: &'static str, mode: &str) -> Result<Contender> {
    let plan = match mode {
        // Servers answer the client directly.
        "dsr" => Plan {
            wiring: Wiring::Segment,
            backends_hold_vips: true,
            ..routed(2)
        },
        _ => routed(2),
    };
    Contender::start(name, &plan, |lab, vip| {
        let backends = lab.backends().iter().map(|backend| {
            let address = SocketAddr::from((backend.addresses.v4, PORT));
            (backend.name.clone(), json!({ "address": address }))
        });
        let document = json!({
            // An ended connection keeps its port for a minute: all ports are wanted.
            "agent": { "full_nat": {
                "addresses": [lab.lb_addresses().v4], "ports": [1024, 65_535],
            } },
            "pools": { "web": { "backends": backends.collect::<serde_json::Map<_, _>>() } },
            "services": { "web": {
                "address": vip.ip(), "port": PORT, "protocol": "tcp", "mode": mode, "pool": "web",
            } },
        });
        Ok(Some(agent::start(lab, &[cpu::first()?], document)?))
    })
}

/// Frames go from the client's link to the server's and back, unread: either's NIC has the
/// address that the other end believes to be its router's.
fn relay() -> Result<Contender> {
    let mut contender = Contender::start(RELAY, &routed(1), |_, _| Ok(None))?;
    let (lab, backend) = (&contender.lab, &contender.lab.backends()[0]);
    for (host, gateway, ours, theirs) in [
        (lab.client(), lab.lb_addresses().v4, "be1", "client"),
        (&backend.namespace, backend.gateway.v4, "client", "be1"),
    ] {
        let [ours, theirs] = [
            text(frames::mac(lab.lb(), ours)?),
            text(frames::mac(lab.lb(), theirs)?),
        ];
        run(host, &format!("ip link set eth0 address {ours}"))?;
        let router = format!("ip neigh replace {gateway} lladdr {theirs} dev eth0 nud permanent");
        run(host, &router)?;
    }
    let relays = [("client", "be1"), ("be1", "client")];
    let relays = relays.map(|(from, to)| Relay::new(lab.lb(), from, to));
    contender._relays = relays.into_iter().collect::<Result<_>>()?;
    contender.verify()?;
    Ok(contender)
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl Contender {
    fn start(
        name: &'static str,
        plan: &Plan,
        balancer: impl FnOnce(&Lab, SocketAddr) -> Result<Option<Process>>,
    ) -> Result<Self> {
        let lab = Lab::new(plan)?;
        let servers = lab.backends().iter();
        let servers = servers.map(|backend| servers::nginx(backend, PORT));
        let servers = servers.collect::<Result<Vec<_>>>()?;
        let relays = name == RELAY;
        let target = match relays {
            true => (lab.backends()[0].addresses.v4, PORT).into(),
            false => (lab.vips()[0].v4, PORT).into(),
        };
        for device in lab.lb_devices() {
            napi::enable(lab.lb(), device)?;
        }
        let mut contender = Self {
            name,
            target,
            threads: Vec::new(),
            process: balancer(&lab, target)?,
            _relays: Vec::new(),
            _servers: servers,
            lab,
        };
        if !relays {
            contender.verify()?;
        }
        contender.poll_by_threads()?;
        Ok(contender)
    }

    /// The balancer's NICs on one CPU, all others' on the other.
    fn poll_by_threads(&mut self) -> Result<()> {
        let lab = &self.lab;
        for device in lab.lb_devices() {
            let threads = napi::poll_by_threads(lab.lb(), device, cpu::last()?)?;
            self.threads.extend(threads);
        }
        let lan = Namespace::open(&format!("{}lan", lab.namespace_prefix()));
        if let Ok(lan) = lan {
            napi::poll_by_threads(&lan, "lb", cpu::first()?)?;
            return Ok(());
        }
        let hosts = lab.backends().iter().map(|backend| &backend.namespace);
        for host in hosts.chain([lab.client()]) {
            napi::poll_by_threads(host, "eth0", cpu::first()?)?;
        }
        Ok(())
    }

    /// Every server answers, and none fails to.
    fn verify(&self) -> Result<()> {
        let answered = || {
            let work = Work {
                timeout: Duration::from_secs(1),
                ..Work::new(self.target, 400)
            };
            let results = Load::http(self.lab.client(), work)?.finish()?;
            ensure!(
                results.failed == 0 && results.by_backend.len() == self.lab.backends().len(),
                "{results:?}"
            );
            Ok(())
        };
        retry(PATIENCE, answered).with_context(|| format!("{} does not balance", self.name))
    }

    /// Where the client runs.
    pub(crate) fn client(&self) -> &Namespace {
        self.lab.client()
    }

    /// Nanoseconds of CPU that the balancer has taken so far.
    pub(crate) fn time(&self) -> Result<u64> {
        let processes = self.threads.iter().copied();
        let processes = processes.chain(self.process.as_ref().map(Process::id));
        processes.map(napi::time).sum()
    }
}
