//! The owner's task.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, block_in_place},
};

use super::{
    Command, Edit, Refused, State,
    compile::{desired, targets},
    health::Verdicts,
    view::{BackendView, PoolView, ServiceView, StatusView, View},
};
use crate::{
    config::{Config, Problem, Problems},
    dataplane::DataPlane,
    desired::Desired,
    health::{Change, Target},
};

/// Requests and verdicts that may wait for the owner.
const WAITING: usize = 256;

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
            }
        }
    }

    fn answer(&mut self, command: Command) {
        // Who asked may have left; the change stands.
        match command {
            Command::Change(edit, reply) => drop(reply.send(self.change(edit))),
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
        self.config = config;
        self.publish_targets();
        // A backend that is another server now does not inherit the old one's health.
        self.follow_health();
        Ok(())
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
        self.follow_health();
    }

    fn follow_health(&mut self) {
        if let Err(error) = self.apply(&self.config.clone()) {
            tracing::error!("the data path does not follow the health checks: {error}");
        }
    }

    /// Has the data path do what this configuration says, with what is known of health.
    fn apply(&mut self, config: &Config) -> Result<(), Refused> {
        let desired = desired(config, &self.verdicts);
        if desired != self.desired {
            self.dataplane.apply(&desired)?;
            self.desired = desired;
        }
        Ok(())
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
            let view = ServiceView {
                config: service.clone(),
                counters: counters.services.remove(name).unwrap_or_default(),
            };
            (name.clone(), view)
        });
        let services = services.collect();
        let mut pools = BTreeMap::new();
        for (name, pool) in &self.config.pools {
            let mut counters = counters.backends.remove(name).unwrap_or_default();
            let checked = pool.health_check.is_some();
            let in_use = |backend: &str| {
                let desired = self
                    .desired
                    .pools
                    .get(name)
                    .and_then(|pool| pool.get(backend));
                desired.is_some_and(|backend| backend.alive && backend.weight > 0)
            };
            let backends = pool.backends.iter().map(|(backend, config)| {
                let view = BackendView {
                    config: config.clone(),
                    health: self.verdicts.view(name, backend, checked),
                    in_use: in_use(backend),
                    counters: counters.remove(backend).unwrap_or_default(),
                };
                (backend.clone(), view)
            });
            let view = PoolView {
                config: pool.clone(),
                backends: backends.collect(),
            };
            pools.insert(name.clone(), view);
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
        };
        Ok(View {
            status,
            config: self.config.clone(),
            services,
            pools,
        })
    }
}
