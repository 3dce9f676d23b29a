//! The task that keeps the table true.

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use rtnetlink::packet_route::RouteNetlinkMessage;
use tokio::{
    sync::mpsc,
    time::{Instant, interval, interval_at, sleep},
};
use tracing::{debug, warn};

use super::{
    News, Wanted,
    addresses::Addresses,
    burst::Burst,
    kernel::{Error, Event, Kernel},
    kicks::Kicks,
    links::Links,
    neighbours::{Key, Neighbours},
    requests::{MOST, Requests},
    routes,
    targets::Targets,
};

const TICK: Duration = Duration::from_secs(1);
/// Links and neighbours are read again this often,
const RESYNC: Duration = Duration::from_secs(30);
/// and the routes of targets looked up again in so many ticks: not all that decides about them is
/// notified of.
const CHECK: usize = 30;
/// At most so many in a tick, which take a few hundredths of a second: then it takes longer.
const CHECKED_AT_ONCE: usize = 1000;
const LONGEST_RECONNECT_PAUSE: Duration = Duration::from_secs(30);
/// Questions in flight; their answers must fit in the socket's receive buffer.
const IN_FLIGHT: usize = 32;
/// Route lookups after which requests get a turn.
const LOOKUPS_PER_TURN: usize = 512;

pub(super) struct Follower {
    wanted: mpsc::UnboundedReceiver<Wanted>,
    requests: Arc<Requests>,
    publisher: mpsc::UnboundedSender<News>,
    epoch: u32,
    links: Links,
    neighbours: Neighbours,
    addresses: Addresses,
    targets: Targets,
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
        wanted: mpsc::UnboundedReceiver<Wanted>,
        requests: Arc<Requests>,
        publisher: mpsc::UnboundedSender<News>,
    ) -> Self {
        Self {
            wanted,
            requests,
            publisher,
            epoch: 0,
            links: Links::default(),
            neighbours: Neighbours::default(),
            addresses: Addresses::default(),
            targets: Targets::default(),
            kicks: Kicks::default(),
            served: HashSet::new(),
            resync: true,
            changed: false,
        }
    }

    /// Runs until nobody wants its news any more.
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
            self.lose_sight();
        }
    }

    /// Notifications were lost.
    fn lose_sight(&mut self) {
        self.targets.forget_all();
        self.resync = true;
        self.changed = true;
    }

    async fn follow(&mut self, mut kernel: Kernel) -> Result<(), Error> {
        let (publisher, requests) = (self.publisher.clone(), self.requests.clone());
        let mut burst = Burst::default();
        // The first pass reads everything.
        burst.at_once(Instant::now());
        let mut tick = interval(TICK);
        let mut resync = interval_at(Instant::now() + RESYNC, RESYNC);
        loop {
            tokio::select! {
                event = kernel.event() => if self.take_in(event?) {
                    burst.event(Instant::now());
                },
                Some(wanted) = self.wanted.recv() => {
                    self.want(wanted);
                    burst.at_once(Instant::now());
                }
                () = requests.arrived() => self.serve(&kernel).await?,
                _ = tick.tick() => {
                    self.served.clear();
                    self.kick(&kernel).await?;
                    if self.check(&kernel).await? {
                        burst.event(Instant::now());
                    }
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
            self.lose_sight();
            return true;
        };
        let changed = match &message {
            RouteNetlinkMessage::NewNeighbour(message) => {
                let set = self.neighbours.set(message);
                set.is_some_and(|set| self.neighbour_changed(set))
            }
            RouteNetlinkMessage::DelNeighbour(message) => {
                let targets = &self.targets;
                let removed = self.neighbours.remove(message, |key| targets.needs(key));
                removed.is_some_and(|removed| self.neighbour_changed(removed))
            }
            RouteNetlinkMessage::NewLink(message) => self.links.set(message) && self.forget_all(),
            RouteNetlinkMessage::DelLink(message) => {
                self.links.remove(message) && self.forget_all()
            }
            RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
                self.targets.forget_routes(routes::covered(message));
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
        self.targets.forget_all();
        true
    }

    fn want(&mut self, wanted: Wanted) {
        for (address, wanted) in wanted {
            match wanted {
                true => self.targets.add(address),
                false => self.targets.remove(address),
            }
        }
    }

    /// Takes in that a neighbour is another now, and whether its MAC address is, which it returns.
    fn neighbour_changed(&mut self, (key, mac): (Key, bool)) -> bool {
        if mac {
            self.targets.neighbour_changed(&key);
        }
        if self.targets.needs(&key) {
            let wanted = self.neighbours.wants_kick(&key);
            self.kicks.set(key, wanted, Instant::now());
        }
        mac
    }

    /// Brings what has changed up to date and tells of it.
    async fn pass(&mut self, kernel: &Kernel) -> Result<(), Error> {
        if self.resync {
            let (links, neighbours) = (kernel.links().await?, kernel.neighbours().await?);
            if self.links != links {
                self.links = links;
                self.changed |= self.forget_all();
            }
            let targets = &self.targets;
            let others = (self.neighbours).replace(neighbours, |key| targets.needs(key));
            for other in others {
                self.changed |= self.neighbour_changed(other);
            }
            self.resync = false;
        }
        let unknown = self.targets.unknown();
        for turn in unknown.chunks(LOOKUPS_PER_TURN) {
            self.look_up(kernel, turn).await?;
            self.serve(kernel).await?;
        }
        self.publish();
        self.kick(kernel).await
    }

    /// Looks some routes up again; whether one is another than it was.
    async fn check(&mut self, kernel: &Kernel) -> Result<bool, Error> {
        let some = self.targets.check(CHECK, CHECKED_AT_ONCE);
        self.look_up(kernel, &some).await
    }

    /// Asks for the ways to these; whether one is another than it was.
    async fn look_up(&mut self, kernel: &Kernel, addresses: &[IpAddr]) -> Result<bool, Error> {
        let lookups = addresses.iter().copied().map(|address| {
            let route = kernel.route(address);
            async move { route.await.map(|route| (address, route)) }
        });
        let found: Vec<_> = stream::iter(lookups)
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await?;
        let mut other = false;
        for (address, route) in found {
            other |= self.targets.found(address, route);
        }
        Ok(other)
    }

    fn publish(&mut self) {
        let outcome = self.targets.resolve(&self.links, &self.neighbours);
        for key in &outcome.unneeded {
            self.kicks.set(*key, false, Instant::now());
        }
        for key in &outcome.needed {
            let wanted = self.neighbours.wants_kick(key);
            self.kicks.set(*key, wanted, Instant::now());
        }
        let changed = std::mem::take(&mut self.changed) || outcome.moved;
        if changed || !outcome.told.is_empty() {
            self.epoch = self.epoch.wrapping_add(changed.into());
            let (told, epoch) = (outcome.told, self.epoch);
            debug!(epoch, targets = told.len(), "next hops changed");
            // Nobody listens any more when it ends.
            let _ = self.publisher.send(News { told, epoch });
        }
    }

    async fn kick(&mut self, kernel: &Kernel) -> Result<(), Error> {
        kick_all(kernel, self.kicks.due(Instant::now())).await
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
