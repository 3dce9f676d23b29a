//! Whatever the way to a configuration, health and drains: the tables are the same.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Lab, Plan, retry};
use lb_common::abi::{Service as Entry, ServiceKey};
use lb_userspace::{
    config::{Backend, Config, Draft, Pool, Problems, Service, from_json},
    dataplane::{DataPlane, Limits, Options, Question},
    desired::{Algorithm, Protocol},
    health::{Change, Health, Retarget},
    proxy::Proxy,
    state::{Parts, PoolView, Refused, ServiceView, State, spawn},
};
use serde_json::json;
use tokio::{runtime::Runtime, sync::mpsc};
use weir_tests::{agent::PATIENCE, wire::Map};

const POOLS: u32 = 3;
const BACKENDS: u32 = 12;
const SERVICES: u32 = 5;
const STEPS: usize = 120;

/// An owner of the state and its data path, which is attached to nothing.
struct Node {
    state: State,
    verdicts: mpsc::Sender<Change>,
    services: Map,
    returns: Map,
    _targets: mpsc::UnboundedReceiver<Retarget>,
}

impl Node {
    fn start(config: Config) -> Result<Self> {
        let dataplane = DataPlane::load(&Options {
            interfaces: Vec::new(),
            hash_key: [1, 2],
            limits: Limits {
                services: 100,
                backends: 2000,
                flows: 1000,
                translations: 0,
            },
            pin: None,
            tell_peers: false,
        })?;
        let services = Map::open(&dataplane, "SERVICES")?;
        let returns = Map::open(&dataplane, "RETURNS")?;
        let (targets, to_check) = mpsc::unbounded_channel();
        let (verdicts, judged) = mpsc::channel(16);
        let (state, _) = spawn(Parts {
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
            services,
            returns,
            _targets: to_check,
        })
    }

    /// Tells a verdict, and waits until it is known.
    fn judge(&self, runtime: &Runtime, pool: &str, backend: &str, healthy: bool) -> Result<()> {
        let (health, word) = match healthy {
            true => (Health::Healthy, "healthy"),
            false => (Health::Unhealthy, "unhealthy"),
        };
        runtime.block_on(self.verdicts.send(Change {
            pool: pool.into(),
            backend: backend.into(),
            health,
            reason: "told".into(),
        }))?;
        retry(PATIENCE, || {
            let view = self.state.backend(pool.into(), backend.into());
            let status = runtime.block_on(view)??.health.status;
            ensure!(status == word, "{pool}/{backend} is {status}");
            Ok(())
        })
    }

    /// What packets would be told: the parts that depend on no history.
    fn tables(&self, runtime: &Runtime) -> Result<Tables> {
        let services = runtime.block_on(self.state.services())?;
        let pools = runtime.block_on(self.state.pools())?;
        let mut owners = Vec::new();
        for (name, service) in &services {
            for client in 0..40u16 {
                let question = Question {
                    protocol: Protocol::Tcp,
                    client: SocketAddr::new([192, 0, 2, 1 + (client % 9) as u8].into(), client),
                    vip: SocketAddr::new(service.config.address, service.config.port),
                };
                let answer = runtime.block_on(self.state.explain(question))?;
                ensure!(answer.service.as_deref() == Some(name), "{answer:?}");
                owners.push((name.clone(), client, answer.current));
            }
        }
        let entries: Vec<Entry> = self.services.values()?;
        let returns: Vec<(ServiceKey, u32)> = self.returns.entries()?;
        let returns = returns
            .into_iter()
            .map(|(key, index)| (key, entries[index as usize].address));
        Ok(Tables {
            digests: digests(&services),
            in_use: in_use(&pools),
            owners,
            returns: returns.collect(),
        })
    }
}

#[derive(Debug, PartialEq)]
struct Tables {
    digests: BTreeMap<String, (String, String)>,
    in_use: Vec<(String, String, bool)>,
    owners: Vec<(String, u16, Option<String>)>,
    /// VIPs by the endpoints that answer for them.
    returns: BTreeMap<ServiceKey, [u64; 2]>,
}

fn digests(services: &BTreeMap<String, ServiceView>) -> BTreeMap<String, (String, String)> {
    let digests = services.iter().map(|(name, service)| {
        let digest = service.counters.digest.clone();
        (name.clone(), (service.served_by.clone(), digest))
    });
    digests.collect()
}

fn in_use(pools: &BTreeMap<String, PoolView>) -> Vec<(String, String, bool)> {
    let backends = pools.iter().flat_map(|(pool, view)| {
        let backends = view.backends.iter();
        backends.map(move |(name, view)| (pool.clone(), name.clone(), view.in_use))
    });
    backends.collect()
}

fn start() -> Result<Config> {
    let pools: BTreeMap<String, _> = (0..POOLS)
        .map(|pool| {
            let pool = format!("p{pool}");
            (pool, json!({ "health_check": { "type": "tcp" } }))
        })
        .collect();
    let document = json!({ "agent": { "interfaces": ["none"] }, "pools": pools });
    Ok(from_json(document.to_string().as_bytes(), "")?)
}

/// A change, by chance; it may be one that is refused.
fn step(
    chance: &mut fastrand::Rng,
) -> impl FnOnce(&mut Draft<'_>) -> Result<(), Refused> + Clone + use<> {
    let kind = chance.u32(0..10);
    let (pool, backend) = (chance.u32(0..POOLS), chance.u32(0..BACKENDS));
    let (service, other) = (chance.u32(0..SERVICES), chance.u32(0..POOLS));
    let (weight, host) = (chance.u16(0..5) * 50, chance.u8(0..2));
    let algorithm = [
        Algorithm::Maglev,
        Algorithm::RoundRobin,
        Algorithm::SourceHash,
    ][chance.usize(0..3)];
    move |draft: &mut Draft<'_>| {
        let pool_name = format!("p{pool}");
        match kind {
            0..5 => {
                let host = [10, pool as u8, host, 1 + backend as u8];
                let config = Backend {
                    address: SocketAddr::new(host.into(), 80),
                    weight,
                };
                draft.set_backend(&pool_name, format!("b{backend}"), Some(config));
            }
            5..7 => {
                draft.set_backend(&pool_name, format!("b{backend}"), None);
            }
            7 => {
                draft.set_service(format!("s{service}"), None);
            }
            8 if backend == 0 => {
                let pool = draft.config().pools.get(&pool_name).cloned();
                let empty = Pool {
                    backends: BTreeMap::new(),
                    ..pool.unwrap_or_default()
                };
                draft.set_pool(pool_name, Some(empty));
            }
            _ => {
                // A pool of its own by turns, or nat would be refused nearly always.
                let nat = service < POOLS && service == pool;
                let text = json!({
                    "address": format!("203.0.113.{}", 1 + service),
                    "port": 80, "protocol": "tcp",
                    "mode": if nat { "nat" } else { "dsr" }, "pool": pool_name,
                    "fallback_pool": (other != pool && !nat).then(|| format!("p{other}")),
                });
                let config = from_json(text.to_string().as_bytes(), "");
                let config: Service = config.map_err(|problem| Problems(vec![problem]))?;
                let config = Service {
                    algorithm,
                    ..config
                };
                draft.set_service(format!("s{service}"), Some(config));
            }
        }
        Ok(())
    }
}

/// One way through changes, verdicts and drains.
fn one_way(seed: u64, runtime: &Runtime) -> Result<()> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let node = Node::start(start()?)?;
    let mut drained = BTreeMap::new();
    for _ in 0..STEPS {
        let pools = runtime.block_on(node.state.pools())?;
        let all = pools.iter().flat_map(|(pool, view)| {
            let names = view.backends.keys();
            names.map(move |name| (pool.clone(), name.clone()))
        });
        let all: Vec<_> = all.collect();
        let some = (!all.is_empty()).then(|| all[chance.usize(0..all.len())].clone());
        drained.retain(|name, ()| all.contains(name));
        match (chance.u32(0..10), some) {
            (0..3, Some((pool, backend))) => {
                node.judge(runtime, &pool, &backend, chance.u32(0..3) > 0)?;
            }
            (3, Some((pool, backend))) => {
                drained.insert((pool.clone(), backend.clone()), ());
                runtime.block_on(node.state.drain(pool, backend, None))?;
            }
            (4, Some((pool, backend))) => {
                drained.remove(&(pool.clone(), backend.clone()));
                runtime.block_on(node.state.undrain(pool, backend))?;
            }
            _ => match runtime.block_on(node.state.change(step(&mut chance))) {
                Ok(()) | Err(Refused::Invalid(_) | Refused::NotFound { .. }) => {}
                Err(error) => bail!(error),
            },
        }
    }
    // Another node that never knew anything else.
    let fresh = Node::start(runtime.block_on(node.state.config())?)?;
    let pools = runtime.block_on(node.state.pools())?;
    for (pool, view) in &pools {
        for (backend, view) in &view.backends {
            match view.health.status.as_str() {
                "healthy" => fresh.judge(runtime, pool, backend, true)?,
                "unhealthy" => fresh.judge(runtime, pool, backend, false)?,
                _ => {}
            }
            if view.drain.is_some() {
                let drain = fresh.state.drain(pool.clone(), backend.clone(), None);
                runtime.block_on(drain)?;
            }
        }
    }
    // The last newcomers' next hops may not be known yet.
    retry(PATIENCE, || {
        let (mut of_changes, anew) = (node.tables(runtime)?, fresh.tables(runtime)?);
        // What is left of backends and services that went may answer for a while.
        let returns = &anew.returns;
        of_changes
            .returns
            .retain(|key, _| returns.contains_key(key));
        ensure!(of_changes == anew, "{of_changes:#?}\nis not\n{anew:#?}");
        Ok(())
    })
}

#[test]
fn any_way_to_a_state_makes_the_same_tables() -> Result<()> {
    let lab = Lab::new(&Plan::default())?;
    // All backends can be reached, by way of one.
    let way = lab.backends()[0].addresses.v4;
    lab.lb().ip(&format!("route add 10.0.0.0/8 via {way}\n"))?;
    lab.lb().run(|| -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let _inside = runtime.enter();
        for seed in 0..6 {
            one_way(seed, &runtime).with_context(|| format!("seed {seed}"))?;
        }
        Ok(())
    })?
}
