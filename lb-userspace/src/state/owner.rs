//! The owner's task.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, block_in_place},
    time::{MissedTickBehavior, interval},
};

use super::{
    Command, Edit, Refused, State,
    compile::{self, desired, targets},
    conditions::{Conditions, conditions},
    drains::{Drains, Left, Name},
    health::Verdicts,
    ramps::Ramps,
    view::{BackendView, PoolView, ServiceView, StatusView, View},
};
use crate::{
    config::{Config, Pool, Problem, Problems, Service},
    dataplane::{BackendCounters, DataPlane},
    desired::{Desired, Mode, Protocol},
    health::{Change, Target},
};

/// Requests and verdicts that may wait for the owner.
const WAITING: usize = 256;

/// How often drains and ramps move on.
const STEP: Duration = Duration::from_secs(1);

/// What the owner works with.
pub struct Parts {
    /// The configuration to begin with, checked.
    pub config: Config,
    /// The data path to tell.
    pub dataplane: DataPlane,
    /// Where the health checks learn what to check.
    pub targets: watch::Sender<Arc<Vec<Target>>>,
    /// Their verdicts.
    pub verdicts: mpsc::Receiver<Change>,
}

struct Owner {
    config: Config,
    verdicts: Verdicts,
    drains: Drains,
    ramps: Ramps,
    conditions: BTreeMap<String, Conditions>,
    desired: Desired,
    dataplane: DataPlane,
    targets: watch::Sender<Arc<Vec<Target>>>,
    started: Instant,
}

/// Starts the owner with the data path doing what the configuration says. It ends, and
/// detaches the data path, when the last [`State`] is dropped; the handle tells when.
///
/// # Errors
///
/// That the data path cannot do it.
pub fn spawn(parts: Parts) -> Result<(State, JoinHandle<()>), Refused> {
    let mut owner = Owner {
        verdicts: Verdicts::default(),
        drains: Drains::default(),
        ramps: Ramps::default(),
        conditions: BTreeMap::new(),
        desired: Desired::default(),
        config: parts.config,
        dataplane: parts.dataplane,
        targets: parts.targets,
        started: Instant::now(),
    };
    owner.apply(&owner.config.clone())?;
    owner.publish_targets();
    let (commands, incoming) = mpsc::channel(WAITING);
    let task = tokio::spawn(owner.run(incoming, parts.verdicts));
    Ok((State { commands }, task))
}

impl Owner {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut verdicts: mpsc::Receiver<Change>,
    ) {
        let mut batch = Vec::new();
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => block_in_place(|| self.answer(command)),
                    None => return,
                },
                // Many backends often change together: one table for all of them.
                _ = verdicts.recv_many(&mut batch, WAITING), if !verdicts.is_closed() => {
                    block_in_place(|| self.judge(batch.drain(..)));
                }
                _ = steps.tick() => block_in_place(|| self.step()),
            }
        }
    }

    fn answer(&mut self, command: Command) {
        // Who asked may have left; the change stands.
        match command {
            Command::Change(edit, reply) => drop(reply.send(self.change(edit))),
            Command::Drain(name, deadline, reply) => drop(reply.send(self.drain(name, deadline))),
            Command::Undrain(name, reply) => drop(reply.send(self.undrain(name))),
            Command::Explain(question, reply) => {
                drop(reply.send(self.dataplane.explain(&question)));
            }
            Command::View(reply) => drop(reply.send(self.view())),
        }
    }

    fn change(&mut self, edit: Edit) -> Result<(), Refused> {
        let mut config = self.config.clone();
        edit(&mut config)?;
        config.check().map_err(Refused::Invalid)?;
        if config.agent != self.config.agent {
            let expected = "the values that the agent started with: restart it to change them";
            let problem = Problem::new("agent", "another value", expected);
            return Err(Refused::Invalid(Problems(vec![problem])));
        }
        self.apply(&config)?;
        self.verdicts.keep(&self.config, &config);
        self.drains.keep(|(pool, backend)| {
            let pool = config.pools.get(pool);
            pool.is_some_and(|pool| pool.backends.contains_key(backend))
        });
        self.config = config;
        self.publish_targets();
        // A backend that is another server now does not inherit the old one's health.
        self.follow();
        Ok(())
    }

    fn drain(&mut self, name: Name, deadline: Option<Duration>) -> Result<(), Refused> {
        self.exists(&name)?;
        let (_, passes) = self.dataplane.flows(&name.0, &name.1).unwrap_or_default();
        self.drains.start(name, deadline, passes);
        self.apply(&self.config.clone())
    }

    fn undrain(&mut self, name: Name) -> Result<(), Refused> {
        self.exists(&name)?;
        if self.drains.stop(&name) {
            self.apply(&self.config.clone())?;
        }
        Ok(())
    }

    fn exists(&self, (pool, backend): &Name) -> Result<(), Refused> {
        let not_found = |what, name: &str| Refused::NotFound {
            what,
            name: name.to_owned(),
        };
        let found = self.config.pools.get(pool);
        let found = found.ok_or_else(|| not_found("pool", pool))?;
        match found.backends.contains_key(backend) {
            true => Ok(()),
            false => Err(not_found("backend", backend)),
        }
    }

    fn judge(&mut self, changes: impl Iterator<Item = Change>) {
        for change in changes {
            tracing::info!(
                pool = change.pool,
                backend = change.backend,
                health = ?change.health,
                reason = change.reason,
                "health"
            );
            self.verdicts.note(change);
        }
        self.follow();
    }

    /// Once a second: drains and ramps move on.
    fn step(&mut self) {
        let ramping = self.ramps.advance();
        let drained = self.drains.any_active() && {
            let (config, dataplane) = (&self.config, &self.dataplane);
            self.drains.advance(|(pool, backend)| {
                let (flows, passes) = dataplane.flows(pool, backend)?;
                let unseen = longest_unseen(config, pool);
                Some(Left {
                    flows,
                    passes,
                    unseen,
                })
            })
        };
        if ramping || drained {
            self.follow();
        }
    }

    /// Has the data path follow what has changed by itself.
    fn follow(&mut self) {
        if let Err(error) = self.apply(&self.config.clone()) {
            tracing::error!("the data path does not follow: {error}");
        }
    }

    /// Has the data path do what this configuration says, with what is known of health.
    fn apply(&mut self, config: &Config) -> Result<(), Refused> {
        let decide = |(name, pool): (&String, &Pool)| {
            let conditions = conditions(name, pool, &self.verdicts, &self.drains);
            (name.clone(), conditions)
        };
        let conditions = config.pools.iter().map(decide).collect();
        let mut desired = desired(config, &conditions, &self.ramps);
        if self.begin_ramps(config, &desired) {
            desired = compile::desired(config, &conditions, &self.ramps);
        }
        if desired != self.desired {
            self.dataplane.apply(&desired)?;
            self.desired = desired;
        }
        self.tell_of_floors(&conditions);
        self.conditions = conditions;
        Ok(())
    }

    /// A backend that joins others which work already gets its share little by little, where
    /// its pool says so. True: there is one more.
    fn begin_ramps(&mut self, config: &Config, desired: &Desired) -> bool {
        let mut begun = false;
        for (name, pool) in &config.pools {
            let (Some(time), Some(old), Some(new)) = (
                pool.slow_start,
                self.desired.pools.get(name),
                desired.pools.get(name),
            ) else {
                continue;
            };
            let worked = |backend: &String| old.get(backend).is_some_and(|old| old.takes_flows());
            if !old.keys().any(worked) {
                continue;
            }
            let joining = new
                .iter()
                .filter(|(name, new)| new.takes_flows() && !worked(name));
            for (backend, _) in joining {
                self.ramps.start((name.clone(), backend.clone()), time);
                begun = true;
            }
        }
        self.ramps.keep(|(pool, backend)| {
            let backend = desired.pools.get(pool).and_then(|pool| pool.get(backend));
            backend.is_some_and(|backend| backend.takes_flows())
        });
        begun
    }

    fn tell_of_floors(&self, new: &BTreeMap<String, Conditions>) {
        for (pool, new) in new {
            let old = self.conditions.get(pool);
            let was_below = old.is_some_and(|old| old.below_floor);
            match (was_below, new.below_floor) {
                (false, true) => tracing::warn!(
                    pool,
                    "too much of the pool fails its checks: the failed are used too"
                ),
                (true, false) => tracing::info!(pool, "the pool is above its health floor again"),
                _ => {}
            }
        }
    }

    fn publish_targets(&self) {
        let new = targets(&self.config);
        self.targets.send_if_modified(|old| {
            let differs = **old != new;
            if differs {
                *old = Arc::new(new);
            }
            differs
        });
    }

    fn view(&self) -> anyhow::Result<View> {
        let mut counters = self.dataplane.counters()?;
        let services = self.config.services.iter().map(|(name, service)| {
            let packets = self.desired.services.get(name).map(|service| &service.pool);
            let local = self.desired.local.get(name).map(|service| &service.pool);
            let view = ServiceView {
                config: service.clone(),
                served_by: packets.or(local).unwrap_or(&service.pool).clone(),
                counters: counters.services.remove(name).unwrap_or_default(),
            };
            (name.clone(), view)
        });
        let services = services.collect();
        let mut pools = BTreeMap::new();
        for (name, pool) in &self.config.pools {
            let counters = counters.backends.remove(name).unwrap_or_default();
            pools.insert(name.clone(), self.pool_view(name, pool, counters));
        }
        let backends = || pools.values().flat_map(|pool| pool.backends.values());
        let status = StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            interfaces: self.dataplane.attachments().to_vec(),
            services: self.config.services.len(),
            pools: pools.len(),
            backends: backends().count(),
            backends_in_use: backends().filter(|backend| backend.in_use).count(),
            drops: counters.unmatched_drops,
            flows: counters.flows,
        };
        Ok(View {
            status,
            config: self.config.clone(),
            services,
            pools,
        })
    }

    fn pool_view(
        &self,
        name: &str,
        pool: &Pool,
        mut counters: BTreeMap<String, BackendCounters>,
    ) -> PoolView {
        let checked = pool.health_check.is_some();
        let desired = self.desired.pools.get(name);
        let backends = pool.backends.iter().map(|(backend, config)| {
            let desired = desired.and_then(|pool| pool.get(backend));
            let view = BackendView {
                config: config.clone(),
                health: self.verdicts.view(name, backend, checked),
                in_use: desired.is_some_and(|backend| backend.takes_flows()),
                drain: self.drains.view(name, backend),
                counters: counters.remove(backend).unwrap_or_default(),
            };
            (backend.clone(), view)
        });
        PoolView {
            config: pool.clone(),
            below_health_floor: (self.conditions.get(name)).is_some_and(|pool| pool.below_floor),
            backends: backends.collect(),
        }
    }
}

/// For how long after a change there may be flows that nobody remembers: those of slots, until
/// they have spoken or gone idle.
fn longest_unseen(config: &Config, pool: &str) -> Duration {
    let services = config.services.values();
    services
        .filter(|service| service.pools().any(|name| name == pool))
        .filter(|service| service.mode != Mode::FullNat && service.protocol == Protocol::Tcp)
        .map(Service::idle_timeout)
        .max()
        .unwrap_or_default()
}
