//! An owner of the state, the data path and what is configured.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{Lab, Plan};
use lb_userspace::{
    config::{Backend, Config, Draft, from_json},
    dataplane::{Attach, DataPlane, Interface, Limits, Options},
    health::{Change, Health, Retarget},
    proxy::Proxy,
    state::{self, Parts, Refused, State},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::JoinHandle,
};

use super::{
    Scale,
    report::{LESS, MORE, WEIGHT},
};

/// Port of VIPs and backends.
pub(crate) const PORT: u16 = 80;

/// What is under test. Nothing checks health: verdicts are told by the benchmark.
pub(crate) struct Scene {
    pub(crate) state: State,
    pub(crate) verdicts: mpsc::Sender<Change>,
    pub(crate) maps: Vec<u32>,
    pub(crate) watcher: super::watcher::Watcher,
    owner: JoinHandle<()>,
    _targets: mpsc::UnboundedReceiver<Retarget>,
}

impl Scene {
    /// Starts it in this thread's namespace.
    pub(crate) fn start(lab: &Lab, scale: Scale, config: Config) -> Result<Self> {
        let attached = lab.lb_devices().iter().map(|name| Interface {
            name: name.clone(),
            attach: Attach::Native,
        });
        let dataplane = DataPlane::load(&Options {
            interfaces: attached.collect(),
            hash_key: [1, 2],
            limits: Limits {
                services: scale.services as u32,
                backends: scale.backends as u32 + 100,
                flows: 1 << 20,
                translations: 1 << 20,
            },
            pin: None,
            tell_peers: false,
        })?;
        let maps = dataplane.with_program(|program| program.info()?.map_ids())??;
        let watcher = super::watcher::Watcher::new(&dataplane)?;
        let (targets, to_check) = mpsc::unbounded_channel();
        let (verdicts, judged) = mpsc::channel(1024);
        let (state, owner) = state::spawn(Parts {
            config,
            dataplane,
            proxy: Proxy::new(1),
            known: Vec::new(),
            targets,
            verdicts: judged,
            serving: tokio::sync::watch::Sender::default(),
            votes: None,
        })?;
        Ok(Self {
            state,
            verdicts,
            maps: maps.unwrap_or_default(),
            watcher,
            owner,
            _targets: to_check,
        })
    }
}

impl Scene {
    /// Ends it, and waits for that: the runtime may not end before the owner of the state.
    pub(crate) fn end(self, runtime: &Runtime) -> Result<()> {
        drop(self.state);
        Ok(runtime.block_on(self.owner)?)
    }

    /// Waits until a backend takes flows.
    pub(crate) async fn is_in_use(&self, pool: usize, backend: usize) -> Result<()> {
        let (pool, backend) = (format!("p{pool}"), format!("b{backend}"));
        while !(self.state.backend(pool.clone(), backend.clone()).await??).in_use {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

/// So many services, each with a pool of its own, and so many backends in all.
pub(crate) fn document(services: usize, backends: usize) -> String {
    let mut text = String::from("\"services\": {");
    for number in 0..services {
        let comma = if number == 0 { "" } else { "," };
        text += &format!(
            r#"{comma}"s{number}": {{"address": "{}", "port": {PORT}, "protocol": "tcp", "mode": "nat", "pool": "p{number}"}}"#,
            vip(number)
        );
    }
    text += "}, \"pools\": {";
    for number in 0..services {
        let comma = if number == 0 { "" } else { "," };
        text +=
            &format!(r#"{comma}"p{number}": {{"health_check": {{"type": "tcp"}}, "backends": {{"#);
        // As even as can be.
        let range = number * backends / services..(number + 1) * backends / services;
        for backend in range.clone() {
            let comma = if backend == range.start { "" } else { "," };
            text += &format!(
                r#"{comma}"b{backend}": {{"address": "{}"}}"#,
                address(backend)
            );
        }
        text += "}}";
    }
    text + "}"
}

/// So many services of one pool.
pub(crate) fn shared(services: usize, backends: usize) -> String {
    let mut text = String::from("\"services\": {");
    for number in 0..services {
        let comma = if number == 0 { "" } else { "," };
        text += &format!(
            r#"{comma}"s{number}": {{"address": "{}", "port": {PORT}, "protocol": "tcp", "mode": "dsr", "pool": "p0"}}"#,
            vip(number)
        );
    }
    text += r#"}, "pools": { "p0": {"health_check": {"type": "tcp"}, "backends": {"#;
    for backend in 0..backends {
        let comma = if backend == 0 { "" } else { "," };
        text += &format!(
            r#"{comma}"b{backend}": {{"address": "{}"}}"#,
            address(backend)
        );
    }
    text + "}}}"
}

/// The whole document, as a file has it.
pub(crate) fn text(lab: &Lab, scale: Scale, document: &str) -> String {
    let device = &lab.lb_devices()[0];
    let (services, backends) = (scale.services, scale.backends + 100);
    format!(
        r#"{{"agent": {{"interfaces": ["{device}"], "limits": {{"services": {services}, "backends": {backends}}}}}, {document}}}"#
    )
}

/// A checked configuration.
pub(crate) fn config(lab: &Lab, scale: Scale, document: &str) -> Result<Config> {
    let config: Config = from_json(text(lab, scale, document).as_bytes(), "")?;
    config.check()?;
    Ok(config)
}

fn vip(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number as u32)
}

/// A lab where the way to every backend leads to the only one there is.
pub(crate) fn lab() -> Result<Lab> {
    let lab = Lab::new(&Plan {
        backends: 1,
        ..Plan::default()
    })?;
    let way = lab.backends()[0].addresses.v4;
    lab.lb()
        .ip(&format!("route add 172.16.0.0/12 via {way}\n"))?;
    Ok(lab)
}

/// At the balancer's place in such a lab, and in a runtime.
pub(crate) fn inside<T: Send>(work: impl FnOnce(&Lab, &Runtime) -> Result<T> + Send) -> Result<T> {
    let lab = lab()?;
    lab.lb().run(|| {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        let _inside = runtime.enter();
        work(&lab, &runtime)
    })?
}

pub(crate) fn address(number: usize) -> SocketAddr {
    let first = u32::from(Ipv4Addr::new(172, 16, 0, 1));
    SocketAddr::new(Ipv4Addr::from(first + number as u32).into(), PORT)
}

/// A verdict on a backend.
pub(crate) fn verdict(pool: usize, backend: usize, healthy: bool) -> Change {
    Change {
        pool: format!("p{pool}"),
        backend: format!("b{backend}"),
        health: match healthy {
            true => Health::Healthy,
            false => Health::Unhealthy,
        },
        reason: "told".into(),
    }
}

type Edit = Box<dyn FnOnce(&mut Draft<'_>) -> Result<(), Refused> + Send>;

/// Changes of one backend, in the order in which they can be made.
pub(crate) fn changes(round: usize) -> [(&'static str, Edit); 3] {
    let set = |name: &'static str, backend: Option<Backend>| -> Edit {
        Box::new(move |draft| {
            draft.set_backend("p0", name.to_owned(), backend);
            Ok(())
        })
    };
    let weighed = |number, weight| Backend {
        address: address(number),
        weight,
    };
    [
        (WEIGHT, set("b7", Some(weighed(7, 50 + (round % 2) as u16)))),
        (LESS, set("b500", None)),
        (MORE, set("b500", Some(weighed(500, 100)))),
    ]
}

/// Changes of one backend among many pools.
pub(crate) fn of_one(round: usize) -> [Edit; 1] {
    let backend = Backend {
        address: address(0),
        weight: 50 + (round % 2) as u16,
    };
    [Box::new(move |draft| {
        draft.set_backend("p0", "b0".into(), Some(backend));
        Ok(())
    })]
}

/// Changes of weights a second, asked for by 32 clients at a time.
pub(crate) async fn rate(state: &State, count: u32) -> Result<f64> {
    let started = Instant::now();
    let clients = (0..32).map(|client: u32| {
        let state = state.clone();
        tokio::spawn(async move {
            for turn in 0..count / 32 {
                let edit = move |draft: &mut Draft<'_>| {
                    let number = (client * 31 + turn) as usize % 1000;
                    let backend = Backend {
                        address: address(number),
                        weight: 60 + (turn % 40) as u16,
                    };
                    draft.set_backend("p0", format!("b{number}"), Some(backend));
                    Ok(())
                };
                state.change(edit).await?;
            }
            Ok::<_, Refused>(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    let elapsed = started.elapsed();
    ensure!(elapsed > Duration::ZERO, "no time has passed");
    Ok(f64::from(count / 32 * 32) / elapsed.as_secs_f64())
}
