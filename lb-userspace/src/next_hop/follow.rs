//! The task that keeps the table true.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use rtnetlink::packet_route::RouteNetlinkMessage;
use tokio::{
    sync::watch,
    time::{Instant, interval, sleep},
};
use tracing::{debug, warn};

use super::{
    Table,
    addresses::Addresses,
    burst::Burst,
    kernel::{Error, Event, Kernel},
    kicks::Kicks,
    links::Links,
    neighbours::{Key, Neighbours},
    requests::{MOST, Requests},
    resolve::resolve,
    routes::{self, Route},
};

const TICK: Duration = Duration::from_secs(1);
/// Everything is read again this often: not all that decides about routes is notified of.
const RESYNC: Duration = Duration::from_secs(30);
const LONGEST_RECONNECT_PAUSE: Duration = Duration::from_secs(30);
/// Questions in flight; their answers must fit in the socket's receive buffer.
const IN_FLIGHT: usize = 32;
/// Route lookups after which requests get a turn.
const LOOKUPS_PER_TURN: usize = 512;

pub(super) struct Follower {
    targets: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    targets_open: bool,
    requests: Arc<Requests>,
    publisher: watch::Sender<Arc<Table>>,
    links: Links,
    neighbours: Neighbours,
    addresses: Addresses,
    /// Of targets; one that is missing is to be looked up.
    routes: BTreeMap<IpAddr, Route>,
    kicks: Kicks,
    /// Requests served since the last tick.
    served: HashSet<Key>,
    /// Links and neighbours must be read again.
    resync: bool,
    /// The epoch must grow.
    changed: bool,
}

impl Follower {
    pub(super) fn new(
        targets: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
        requests: Arc<Requests>,
        publisher: watch::Sender<Arc<Table>>,
    ) -> Self {
        Self {
            targets,
            targets_open: true,
            requests,
            publisher,
            links: Links::default(),
            neighbours: Neighbours::default(),
            addresses: Addresses::default(),
            routes: BTreeMap::new(),
            kicks: Kicks::default(),
            served: HashSet::new(),
            resync: false,
            changed: false,
        }
    }

    /// Runs until nobody can see the table any more.
    pub(super) async fn run(mut self, kernel: Kernel) {
        let mut kernel = Some(kernel);
        let mut pause = TICK;
        loop {
            let started = Instant::now();
            let error: anyhow::Error = match kernel.take().map_or_else(Kernel::connect, Ok) {
                Ok(kernel) => match self.follow(kernel).await {
                    Ok(()) => return,
                    Err(error) => error.into(),
                },
                Err(error) => error.into(),
            };
            if started.elapsed() > LONGEST_RECONNECT_PAUSE {
                pause = TICK;
            }
            warn!(?pause, "lost sight of the kernel's routes: {error:#}");
            let publisher = self.publisher.clone();
            tokio::select! {
                () = sleep(pause) => {}
                () = publisher.closed() => return,
            }
            pause = (pause * 2).min(LONGEST_RECONNECT_PAUSE);
            self.changed = true;
        }
    }

    async fn follow(&mut self, mut kernel: Kernel) -> Result<(), Error> {
        let (publisher, requests) = (self.publisher.clone(), self.requests.clone());
        let mut burst = Burst::default();
        let mut tick = interval(TICK);
        // Its first tick, at once, makes the first pass.
        let mut resync = interval(RESYNC);
        loop {
            tokio::select! {
                event = kernel.event() => if self.take_in(event?) {
                    burst.event(Instant::now());
                },
                changed = self.targets.changed(), if self.targets_open => match changed {
                    Ok(()) => burst.at_once(Instant::now()),
                    Err(_) => self.targets_open = false,
                },
                () = requests.arrived() => self.serve(&kernel).await?,
                _ = tick.tick() => {
                    self.served.clear();
                    self.kick(&kernel).await?;
                }
                _ = resync.tick() => {
                    self.resync = true;
                    burst.at_once(Instant::now());
                }
                () = burst.over() => {
                    let started = Instant::now();
                    self.pass(&kernel).await?;
                    burst = Burst::after_pass(started.elapsed());
                }
                () = publisher.closed() => return Ok(()),
            }
        }
    }

    /// Takes in a notification; says whether it calls for a pass.
    fn take_in(&mut self, event: Event) -> bool {
        let Event::Message(message) = event else {
            warn!("the kernel's notifications came too fast: reading everything again");
            self.resync = true;
            self.changed = true;
            return true;
        };
        let changed = match &message {
            RouteNetlinkMessage::NewNeighbour(message) => self.neighbours.set(message),
            RouteNetlinkMessage::DelNeighbour(message) => {
                let kicks = &self.kicks;
                self.neighbours.remove(message, |key| kicks.needs(key))
            }
            RouteNetlinkMessage::NewLink(message) => self.links.set(message) && self.forget_all(),
            RouteNetlinkMessage::DelLink(message) => {
                self.links.remove(message) && self.forget_all()
            }
            RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
                let covered = self.routes.range(routes::covered(message));
                for address in covered.map(|(address, _)| *address).collect::<Vec<_>>() {
                    self.routes.remove(&address);
                }
                true
            }
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => self.forget_all(),
            RouteNetlinkMessage::NewAddress(message) => {
                self.addresses.set(message) && self.forget_all()
            }
            RouteNetlinkMessage::DelAddress(message) => {
                self.addresses.remove(message);
                self.forget_all()
            }
            _ => false,
        };
        self.changed |= changed;
        changed
    }

    fn forget_all(&mut self) -> bool {
        self.routes.clear();
        true
    }

    /// Brings everything up to date and publishes it.
    async fn pass(&mut self, kernel: &Kernel) -> Result<(), Error> {
        if self.resync {
            let (links, neighbours) = (kernel.links().await?, kernel.neighbours().await?);
            self.changed |= self.links != links || !self.neighbours.agrees_with(&neighbours);
            (self.links, self.neighbours) = (links, neighbours);
            self.routes.clear();
            self.resync = false;
        }
        let targets = self.targets.borrow_and_update().clone();
        self.routes.retain(|address, _| targets.contains(address));
        let unknown = |address: &&IpAddr| !self.routes.contains_key(*address);
        let unknown: Vec<IpAddr> = targets.iter().filter(unknown).copied().collect();
        for turn in unknown.chunks(LOOKUPS_PER_TURN) {
            let lookups = turn.iter().copied().map(|address| {
                let route = kernel.route(address);
                async move { route.await.map(|route| (address, route)) }
            });
            let found: Vec<_> = stream::iter(lookups)
                .buffer_unordered(IN_FLIGHT)
                .try_collect()
                .await?;
            self.routes.extend(found);
            self.serve(kernel).await?;
        }
        self.publish();
        self.kick(kernel).await
    }

    fn publish(&mut self) {
        let mut needed = HashSet::new();
        let resolve = |(target, route): (&IpAddr, &Route)| {
            let resolution = resolve(*target, route, &self.links, &self.neighbours, &mut needed);
            (*target, resolution)
        };
        let next_hops: BTreeMap<_, _> = self.routes.iter().map(resolve).collect();
        self.kicks.need(needed, Instant::now());
        let before = self.publisher.borrow().clone();
        let moved = |(target, now)| before.next_hops.get(target).is_some_and(|then| then != now);
        let changed = std::mem::take(&mut self.changed) || next_hops.iter().any(moved);
        if changed || next_hops != before.next_hops {
            let epoch = before.epoch.wrapping_add(changed.into());
            debug!(epoch, targets = next_hops.len(), "next hops changed");
            self.publisher
                .send_replace(Arc::new(Table { next_hops, epoch }));
        }
    }

    async fn kick(&mut self, kernel: &Kernel) -> Result<(), Error> {
        let due = self.kicks.due(Instant::now(), &self.neighbours);
        kick_all(kernel, due).await
    }

    /// Serves what the data path asked for.
    async fn serve(&mut self, kernel: &Kernel) -> Result<(), Error> {
        let mut keys = Vec::new();
        for key in self.requests.take() {
            let room = self.served.len() < MOST;
            if room && self.neighbours.wants_kick(&key) && self.served.insert(key) {
                keys.push(key);
            }
        }
        kick_all(kernel, keys).await
    }
}

async fn kick_all(kernel: &Kernel, keys: Vec<Key>) -> Result<(), Error> {
    let kicks = keys
        .into_iter()
        .map(|key| async move { kernel.kick(key).await.map(|result| (key, result)) });
    let mut kicks = stream::iter(kicks).buffer_unordered(IN_FLIGHT);
    while let Some((key, result)) = kicks.try_next().await? {
        if let Err(error) = result {
            debug!(%key.address, key.ifindex, "the kernel does not resolve a neighbour: {error}");
        }
    }
    Ok(())
}
