//! Who forwards frames.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use frames::{Generator, Relay, Sink};
use lab::{Lab, Process, retry};
use serde_json::json;
use weir_tests::cpu;

use super::{
    network::{self, BACKENDS, NEW, STEADY},
    nftables,
    verify::{self, Expected},
};
use crate::agent;

/// How long setting up may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// One of those that are compared.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) steady: Generator,
    pub(crate) new: Generator,
    /// Counts what arrives.
    pub(crate) sink: Rc<Sink>,
    /// Frames of a round of steady flows.
    pub(crate) steady_frames: u32,
    /// Frames of a round of new flows: what the tables have room for.
    pub(crate) new_frames: u32,
    /// Whether connection tracking is to forget before new flows.
    pub(crate) tracked: bool,
    lab: Rc<Lab>,
    _relay: Option<Relay>,
    _agent: Option<Rc<Process>>,
}

/// Frames of a round. The end of a call of the generator takes some ten milliseconds more or
/// less: so many that this is five nanoseconds a frame, which many rounds even out.
const FRAMES: u32 = 2_000_000;
/// The same for nftables, whose frames take several times as long.
const SLOW: u32 = 500_000;
/// The same for new flows of those that remember each: well below a million ports, and below
/// conntrack's usual limit of 262,144.
const REMEMBERED: u32 = 200_000;

pub(crate) const DROP: &str = "dropped at the door";
pub(crate) const RELAY: &str = "redirect only (floor)";
pub(crate) const DSR: &str = "Weir, dsr";
pub(crate) const NAT: &str = "Weir, nat";
pub(crate) const FULL_NAT: &str = "Weir, full-nat";
pub(crate) const DNAT: &str = "nftables DNAT";
pub(crate) const MASQUERADE: &str = "nftables DNAT, masquerade";

/// All of them, seen to be working.
pub(crate) fn all() -> Result<Vec<Contender>> {
    let mut all = vec![dropping()?, relay()?];
    all.extend(weir()?);
    all.push(dnat(false)?);
    all.push(dnat(true)?);
    Ok(all)
}

impl Contender {
    fn new(name: &'static str, lab: &Rc<Lab>, vip: SocketAddr, sink: &Rc<Sink>) -> Result<Self> {
        Ok(Self {
            name,
            steady: network::generator(lab, vip, STEADY)?,
            new: network::generator(lab, vip, NEW)?,
            sink: sink.clone(),
            steady_frames: FRAMES,
            new_frames: FRAMES,
            tracked: false,
            lab: lab.clone(),
            _relay: None,
            _agent: None,
        })
    }

    fn verify(&mut self, expected: &Expected) -> Result<()> {
        let backend = &self.lab.backends()[0].namespace;
        retry(PATIENCE, || {
            verify::forwards(backend, &mut self.steady, expected)
        })
        .with_context(|| format!("{} does not forward", self.name))
    }

    /// From now on frames end at the backends' NIC.
    fn swallow(&self) -> Result<()> {
        let backend = &self.lab.backends()[0].namespace;
        self.lab.replace_program(backend, self.sink.program()?)
    }

    /// Forgets what was remembered of flows, where that must be done.
    pub(crate) fn forget(&self) -> Result<()> {
        if self.tracked {
            nftables::forget(self.lab.lb())?;
        }
        Ok(())
    }
}

fn vip(lab: &Lab, port: u16) -> SocketAddr {
    (lab.vips()[0].v4, port).into()
}

fn backends(port: u16) -> BTreeSet<SocketAddrV4> {
    let all = (1..=BACKENDS).map(network::backend);
    all.map(|address| SocketAddrV4::new(address, port))
        .collect()
}

fn dropping() -> Result<Contender> {
    let lab = Rc::new(network::lab()?);
    let mut sink = Sink::new()?;
    sink.attach(lab.lb(), "client")?;
    let mut contender = Contender::new(DROP, &lab, vip(&lab, 80), &Rc::new(sink))?;
    // Again where some were lost on the way: whoever shares the machine may hold up a CPU.
    retry(PATIENCE, || {
        let before = contender.sink.swallowed()?;
        contender.steady.send(FRAMES)?;
        let arrived = contender.sink.swallowed()? - before;
        // A neighbour's question, say, comes in beside the frames.
        ensure!(
            arrived >= u64::from(FRAMES),
            "{arrived} frames arrived of {FRAMES}"
        );
        Ok(())
    })?;
    Ok(contender)
}

fn relay() -> Result<Contender> {
    let lab = Rc::new(network::lab()?);
    let relay = Relay::new(lab.lb(), "client", "be1")?;
    let vip = vip(&lab, 80);
    let mut contender = Contender::new(RELAY, &lab, vip, &Rc::new(Sink::new()?))?;
    contender._relay = Some(relay);
    contender.verify(&Expected {
        source: None,
        destinations: [SocketAddrV4::new(lab.vips()[0].v4, 80)].into(),
        backends: 1,
        ttl: 64,
    })?;
    contender.swallow()?;
    Ok(contender)
}

/// A service in each mode, of one agent.
fn weir() -> Result<Vec<Contender>> {
    let lab = Rc::new(network::lab()?);
    let modes = [
        ("dsr", DSR, 80),
        ("nat", NAT, 81),
        ("full-nat", FULL_NAT, 82),
    ];
    let own = lab.lb_addresses().v4;
    let mut document = json!({
        "agent": { "full_nat": { "addresses": [own], "ports": [1024, 65_535] } },
        "pools": {}, "services": {},
    });
    for (mode, _, port) in modes {
        let backends = (1..=BACKENDS).map(|number| {
            let address = SocketAddrV4::new(network::backend(number), port);
            (format!("be{number}"), json!({ "address": address }))
        });
        document["pools"][mode]["backends"] = backends.collect::<serde_json::Map<_, _>>().into();
        document["services"][mode] = json!({
            "address": lab.vips()[0].v4, "port": port, "protocol": "udp", "mode": mode,
            "pool": mode, "idle_timeout": "2s",
        });
    }
    let agent = Rc::new(agent::start(&lab, &[cpu::first()?], document)?);
    let sink = Rc::new(Sink::new()?);
    let mut contenders = Vec::new();
    for (mode, name, port) in modes {
        let mut contender = Contender::new(name, &lab, vip(&lab, port), &sink)?;
        contender._agent = Some(agent.clone());
        let expected = match mode {
            "dsr" => Expected {
                source: None,
                destinations: [SocketAddrV4::new(lab.vips()[0].v4, port)].into(),
                backends: BACKENDS.into(),
                ttl: 64,
            },
            _ => translated((mode == "full-nat").then_some(own), port),
        };
        contender
            .verify(&expected)
            .with_context(|| agent::log(&lab))?;
        if mode == "full-nat" {
            contender.new_frames = REMEMBERED;
        }
        contenders.push(contender);
    }
    contenders[0].swallow()?;
    Ok(contenders)
}

fn translated(source: Option<Ipv4Addr>, port: u16) -> Expected {
    Expected {
        source,
        destinations: backends(port),
        backends: BACKENDS.into(),
        ttl: 63,
    }
}

fn dnat(masquerade: bool) -> Result<Contender> {
    let lab = Rc::new(network::lab()?);
    let vip = vip(&lab, 80);
    let backends = (1..=BACKENDS).map(|number| network::backend(number).into());
    nftables::balance(lab.lb(), "udp", vip, backends, masquerade)?;
    let name = if masquerade { MASQUERADE } else { DNAT };
    let mut contender = Contender::new(name, &lab, vip, &Rc::new(Sink::new()?))?;
    // The address of the balancer towards the backends.
    let own = masquerade.then_some(lab.backends()[0].gateway.v4);
    contender.verify(&translated(own, 80))?;
    contender.swallow()?;
    (contender.steady_frames, contender.new_frames) = (SLOW, REMEMBERED);
    contender.tracked = true;
    Ok(contender)
}
