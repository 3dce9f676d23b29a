//! The owner's task: who asks for what, and in which order it is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, block_in_place},
    time::{self, MissedTickBehavior, interval, sleep_until},
};

use super::{
    Command, Refused, State,
    agreement::Agreement,
    compile::targets,
    conditions::Conditions,
    drains::{Drains, Left, Name},
    handover::{Known, Offer},
    health::Verdicts,
    pending::Pending,
    ramps::Ramps,
    reach::{News, Reach},
};
use crate::{
    config::{Config, Live, Service, Touched},
    dataplane::DataPlane,
    desired::{Desired, Mode, Protocol},
    events::{self, Kind},
    ha::Serving,
    health::{Change, Retarget},
    next_hop::Told,
    proxy::Proxy,
    shared::{Counted, Votes},
};

/// Requests, verdicts and votes that may wait for the owner, and that it takes at once.
const WAITING: usize = 256;
/// For how long verdicts gather after some were acted on, if no more are waiting: when many backends
/// are checked for the first time, each would make its pool anew.
const GATHER: Duration = Duration::from_millis(20);

/// How often drains and ramps move on.
const STEP: Duration = Duration::from_secs(1);

/// How the data path is let go.
enum Leave {
    /// With nobody to go on with it, yet.
    Alone(oneshot::Sender<()>),
    /// To another agent, if that takes it.
    To(oneshot::Sender<anyhow::Result<Offer>>),
}

/// What the owner works with.
pub struct Parts {
    /// The configuration to begin with.
    pub config: Config,
    /// The data path to tell.
    pub dataplane: DataPlane,
    /// The HTTP proxy to tell.
    pub proxy: Proxy,
    /// Where the health checks learn what to check.
    pub targets: mpsc::UnboundedSender<Retarget>,
    /// What the agent before this one knew of backends, if this one takes over.
    pub known: Vec<Known>,
    /// Their verdicts.
    pub verdicts: mpsc::Receiver<Change>,
    /// Where it is told which services can be served, of those that shared addresses depend on.
    pub serving: watch::Sender<Serving>,
    /// Where nodes agree on health: how.
    pub votes: Option<Votes>,
}

pub(super) struct Owner {
    // Ends before the packet path does.
    pub(super) proxy: Proxy,
    pub(super) live: Live,
    pub(super) verdicts: Verdicts,
    pub(super) drains: Drains,
    pub(super) ramps: Ramps,
    pub(super) reach: Reach,
    /// Where the resolver tells of backends' next hops.
    pub(super) resolutions: mpsc::UnboundedReceiver<Told>,
    /// What it has told that the data path does not follow yet.
    pub(super) heard: Vec<(IpAddr, News)>,
    /// When a change has last waited for next hops in vain.
    pub(super) in_vain: Option<Instant>,
    /// By pool.
    pub(super) conditions: BTreeMap<String, Conditions>,
    /// Pools that there were at the start, of which nothing was known, until all of each are
    /// checked.
    pub(super) waiting: BTreeSet<String>,
    pub(super) desired: Desired,
    pub(super) dataplane: DataPlane,
    targets: mpsc::UnboundedSender<Retarget>,
    pub(super) serving: watch::Sender<Serving>,
    pub(super) started: Instant,
}

/// Has the data path do what the configuration says, attaches it and starts the owner. That
/// ends, and detaches the data path, when the last [`State`] is dropped; the handle tells when.
///
/// # Errors
///
/// What is wrong with the configuration; or that the data path cannot do it, or be attached.
pub fn spawn(mut parts: Parts) -> Result<(State, JoinHandle<()>), Refused> {
    let full_nat = &parts.config.agent.full_nat;
    let mut owner = Owner {
        verdicts: Verdicts::default(),
        drains: Drains::default(),
        ramps: Ramps::default(),
        reach: Reach::default(),
        resolutions: parts.dataplane.take_resolutions(),
        heard: Vec::new(),
        in_vain: None,
        conditions: BTreeMap::new(),
        waiting: BTreeSet::new(),
        desired: Desired {
            source_addresses: full_nat.addresses.clone(),
            peer_source_addresses: full_nat.peer_addresses.clone(),
            source_ports: full_nat.ports,
            ..Desired::default()
        },
        live: Live::new(parts.config).map_err(Refused::Invalid)?,
        dataplane: parts.dataplane,
        proxy: parts.proxy,
        targets: parts.targets,
        serving: parts.serving,
        started: Instant::now(),
    };
    owner.dataplane.apply(&owner.desired)?;
    let config = owner.live.config();
    let all = Touched {
        services: config.services.keys().cloned().collect(),
        pools: config
            .pools
            .keys()
            .map(|name| (name.clone(), None))
            .collect(),
    };
    let mut counted = None;
    if let Some(votes) = parts.votes {
        owner.verdicts.agreement = Some(Agreement::new(votes.casts));
        counted = Some(votes.counted);
    }
    owner
        .verdicts
        .inherit(owner.live.config(), &owner.dataplane);
    owner.learn(parts.known);
    for (name, pool) in &owner.live.config().pools {
        owner.verdicts.find_votes(name, Some(pool), None);
    }
    // What others say is known before this node has checked anything.
    while let Some(Ok(news)) = counted.as_mut().map(mpsc::UnboundedReceiver::try_recv) {
        owner.verdicts.count(news);
    }
    owner.wait_at_start();
    owner.commit(&all)?;
    owner.dataplane.expect(BTreeSet::new());
    owner.follow_heard();
    let fresh = owner.conditions.iter().filter(|(_, is)| is.fresh);
    owner.waiting = fresh.map(|(name, _)| name.clone()).collect();
    owner.dataplane.attach().map_err(Refused::Unattached)?;
    owner.proxy.open();
    let (commands, incoming) = mpsc::channel(WAITING);
    let task = tokio::spawn(owner.run(incoming, parts.verdicts, counted));
    let shared = None;
    Ok((State { commands, shared }, task))
}

impl Owner {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut verdicts: mpsc::Receiver<Change>,
        mut counted: Option<mpsc::UnboundedReceiver<Counted>>,
    ) {
        let (mut asked, mut judged, mut votes) = (Vec::new(), Vec::new(), Vec::new());
        let mut gathering: Option<time::Instant> = None;
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Many changes often come together: one table for all of them.
                count = commands.recv_many(&mut asked, WAITING) => match count {
                    // Requests that are under way have some time to end.
                    0 => return block_in_place(|| drop(self)),
                    _ => {
                        let mut asked = asked.drain(..);
                        while let Some(leave) = block_in_place(|| self.answer(&mut asked)) {
                            match leave {
                                Leave::Alone(done) => {
                                    block_in_place(|| self.let_go());
                                    // Who asked may have left.
                                    let _ = done.send(());
                                    return;
                                }
                                Leave::To(asking) => if let Some(done) = self.offer(asking).await {
                                    return block_in_place(|| self.hand_over(done));
                                },
                            }
                        }
                    }
                },
                count = verdicts.recv_many(&mut judged, WAITING),
                    if gathering.is_none() && !verdicts.is_closed() =>
                {
                    block_in_place(|| self.judge(judged.drain(..)));
                    gathering = (count < WAITING).then(|| time::Instant::now() + GATHER);
                }
                () = sleep_until(gathering.unwrap_or_else(time::Instant::now)),
                    if gathering.is_some() => gathering = None,
                _ = next(&mut counted, &mut votes) => {
                    block_in_place(|| self.count(votes.drain(..)));
                }
                Some(told) = self.resolutions.recv() => block_in_place(|| {
                    self.heard.extend(self.reach.hear_all(told));
                    self.follow_heard();
                }),
                _ = steps.tick() => block_in_place(|| self.step()),
            }
        }
    }

    /// Answers in order. Changes that follow each other are made together, and answered when
    /// they are in the data path. Returns how the data path is to be let go, if that is wanted;
    /// what was asked for after it is left.
    fn answer(&mut self, commands: impl Iterator<Item = Command>) -> Option<Leave> {
        let mut pending = Pending::default();
        for command in commands {
            if let Command::Change(edit, reply) = command {
                self.change(&mut pending, edit, reply);
                continue;
            }
            self.make(std::mem::take(&mut pending));
            // Who asked may have left; the change stands.
            match command {
                Command::Change(..) => {}
                Command::Drain(name, deadline, reply) => {
                    drop(reply.send(self.drain(name, deadline)));
                }
                Command::Undrain(name, reply) => drop(reply.send(self.undrain(&name))),
                Command::Explain(question, reply) => {
                    drop(reply.send(self.dataplane.explain(&question)));
                }
                Command::Look(look) => look(self),
                Command::LetGo(done) => return Some(Leave::Alone(done)),
                Command::Offer(asking) => return Some(Leave::To(asking)),
            }
        }
        self.make(pending);
        None
    }

    fn let_go(self) {
        let Self {
            proxy, dataplane, ..
        } = self;
        drop(proxy);
        dataplane.let_go();
    }

    /// Takes a change into the configuration, to be made in the data path with the others.
    fn change(
        &mut self,
        pending: &mut Pending,
        edit: super::Edit,
        reply: oneshot::Sender<Result<(), Refused>>,
    ) {
        let changed = match self.live.change(edit) {
            Ok(((), changed)) => changed,
            Err(refused) => return drop(reply.send(Err(refused))),
        };
        if pending.is_empty() || self.has_room(pending.touched(), changed.touched()) {
            return pending.add(changed, reply);
        }
        // It may be too much for the data path: that is to be its own fault alone.
        let again = self.live.undo(changed);
        if self.make(std::mem::take(pending)) {
            pending.add(self.live.undo(again), reply);
        } else {
            drop(reply.send(Err(Refused::Together)));
        }
    }

    /// Whether the data path surely has room for all that two changes touch.
    fn has_room(&self, one: &Touched, other: &Touched) -> bool {
        let config = self.live.config();
        let backends = |touched: &Touched| -> usize {
            let pools = touched.pools.iter();
            let new = pools.map(|(pool, touched)| match touched {
                Some(backends) => backends.len(),
                None => config.pools.get(pool).map_or(0, |pool| pool.backends.len()),
            });
            new.sum()
        };
        let services = one.services.len() + other.services.len();
        let room = self.dataplane.room();
        services <= room.0 && backends(one) + backends(other) <= room.1
    }

    /// Makes changes in the data path, all or none, and answers; whether they are made.
    fn make(&mut self, mut pending: Pending) -> bool {
        if pending.is_empty() {
            return true;
        }
        self.wait_for_newcomers(pending.touched());
        let result = self.commit(pending.touched());
        if result.is_err() {
            for changed in pending.undo() {
                self.live.undo(changed);
            }
        }
        self.dataplane.expect(BTreeSet::new());
        self.follow_heard();
        let made = result.is_ok();
        pending.answer(result);
        made
    }

    /// Has the data path and the health checks do what the configuration says of what was
    /// touched.
    fn commit(&mut self, touched: &Touched) -> Result<(), Refused> {
        let pools = touched.pools.keys().cloned().collect();
        self.apply(touched.services.clone(), pools)?;
        let mut news = false;
        for (name, backends) in &touched.pools {
            let pool = self.live.config().pools.get(name);
            // A backend that is another server now does not inherit the old one's health.
            news |= self.verdicts.keep(name, pool, backends.as_ref());
            news |= self.verdicts.find_votes(name, pool, backends.as_ref());
            self.drains.keep(name, |backend| {
                pool.is_some_and(|pool| pool.backends.contains_key(backend))
            });
            for retarget in targets(name, pool, backends.as_ref()) {
                // Nobody checks any more when the agent ends.
                drop(self.targets.send(retarget));
            }
        }
        if news {
            self.follow(touched.pools.keys().cloned().collect());
        }
        Ok(())
    }

    fn drain(&mut self, name: Name, deadline: Option<Duration>) -> Result<(), Refused> {
        self.exists(&name)?;
        let (_, passes) = self.dataplane.flows(&name.0, &name.1).unwrap_or_default();
        let pool = name.0.clone();
        self.drains.start(name, deadline, passes);
        self.wait_for_newcomers(&Touched {
            pools: BTreeMap::from([(pool.clone(), None)]),
            ..Touched::default()
        });
        self.follow_heard();
        self.apply(BTreeSet::new(), BTreeSet::from([pool]))
    }

    fn undrain(&mut self, name: &Name) -> Result<(), Refused> {
        self.exists(name)?;
        match self.drains.stop(name) {
            true => self.apply(BTreeSet::new(), BTreeSet::from([name.0.clone()])),
            false => Ok(()),
        }
    }

    fn exists(&self, (pool, backend): &Name) -> Result<(), Refused> {
        let found = self.live.config().pools.get(pool);
        let found = found.ok_or_else(|| Refused::not_found("pool", pool))?;
        match found.backends.contains_key(backend) {
            true => Ok(()),
            false => Err(Refused::not_found("backend", backend)),
        }
    }

    fn judge(&mut self, changes: impl Iterator<Item = Change>) {
        let mut pools = BTreeSet::new();
        for change in changes {
            events::info(
                Kind::Health,
                format_args!("{}/{}", change.pool, change.backend),
                format_args!("{} here: {}", change.health, change.reason),
            );
            let pool = self.live.config().pools.get(&change.pool);
            if let Some(config) = pool.and_then(|pool| pool.backends.get(&change.backend)) {
                pools.insert(change.pool.clone());
                self.verdicts.note(change, config.address);
            }
        }
        self.follow(pools);
    }

    fn count(&mut self, counted: impl Iterator<Item = Counted>) {
        let pools = counted.flat_map(|news| self.verdicts.count(news)).collect();
        self.follow(pools);
    }

    /// Once a second: drains and ramps move on, and what the kernel has refused is tried again.
    fn step(&mut self) {
        self.proxy.refresh();
        self.give_up();
        let mut pools = self.ramps.advance();
        let (live, dataplane, proxy) = (&self.live, &self.dataplane, &self.proxy);
        pools.extend(self.drains.advance(|pool, backend| {
            let (flows, passes) = dataplane.flows(pool, backend)?;
            let flows = flows + proxy.in_flight(pool, backend);
            let unseen = longest_unseen(live, pool);
            Some(Left {
                flows,
                passes,
                unseen,
            })
        }));
        if !pools.is_empty() || self.dataplane.is_unfinished() {
            self.follow(pools);
        }
    }

    /// Has the data path follow what has changed by itself.
    pub(super) fn follow(&mut self, pools: BTreeSet<String>) {
        if let Err(error) = self.apply(BTreeSet::new(), pools) {
            tracing::error!("the data path does not follow: {error}");
        }
    }
}

/// Waits for votes that were counted, for ever where nobody votes.
async fn next(counted: &mut Option<mpsc::UnboundedReceiver<Counted>>, votes: &mut Vec<Counted>) {
    if let Some(receiver) = counted {
        match receiver.recv_many(votes, WAITING).await {
            0 => *counted = None,
            _ => return,
        }
    }
    pending().await
}

/// For how long after a change there may be flows that nobody remembers: those of slots, until
/// they have spoken or gone idle.
fn longest_unseen(live: &Live, pool: &str) -> Duration {
    let services = live.users(pool);
    services
        .filter_map(|name| live.config().services.get(name))
        .filter(|service| !matches!(service.mode, Mode::FullNat | Mode::Local))
        .filter(|service| service.protocol == Protocol::Tcp)
        .map(Service::idle_timeout)
        .max()
        .unwrap_or_default()
}
