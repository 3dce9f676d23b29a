//! The task that puts this node's votes into etcd and counts all.

use std::{collections::HashSet, convert::Infallible, pin::pin, time::Duration};

use futures::{FutureExt as _, future::Fuse, future::FusedFuture as _};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    AgreementView, Cast, Counted, Order,
    ballots::{Ballots, key},
    own::Own,
};
use crate::{
    events::{self, Kind},
    health::vote::Candidate,
    shared::{
        Location,
        lease::Lease,
        store::{News, Store, StoreError, Watch},
        view::now,
    },
};

/// Votes that are taken at once.
const AT_ONCE: usize = 1 << 16;
/// Between two times that votes are sent: what changes meanwhile is sent together.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two attempts to reach etcd.
const RETRY: Duration = Duration::from_millis(500);

pub(super) struct Task {
    location: Location,
    /// What all nodes' keys begin with.
    prefix: String,
    casts: mpsc::UnboundedReceiver<Cast>,
    /// Whether votes are cast, or wait.
    casting: bool,
    counted: mpsc::UnboundedSender<Counted>,
    view: watch::Sender<AgreementView>,
    own: Own,
    ballots: Ballots,
    /// The last lease. It outlives connections.
    lease: Option<i64>,
    /// For how long it lasts.
    length: Duration,
    /// When it was surely there, and all votes in etcd.
    good: Option<Instant>,
    /// Whether the owner was told to act on the majority.
    agreed: bool,
}

/// What a connection begins with.
struct Session {
    store: Store,
    lease: Lease,
    found: Vec<News>,
    watch: Watch,
}

impl Task {
    pub(super) fn new(
        location: Location,
        length: Duration,
        casts: mpsc::UnboundedReceiver<Cast>,
        counted: mpsc::UnboundedSender<Counted>,
        view: watch::Sender<AgreementView>,
    ) -> Self {
        let prefix = location.votes();
        let name = nix::unistd::gethostname().unwrap_or_default();
        Self {
            own: Own::new(name.to_string_lossy().into_owned()),
            ballots: Ballots::new(prefix.clone()),
            location,
            prefix,
            casts,
            casting: false,
            counted,
            view,
            lease: None,
            length,
            good: None,
            agreed: false,
        }
    }

    /// Runs until the other end of `orders` is dropped, and takes the votes back then; or until it
    /// is to leave them to another agent, and answers under which lease they are.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) -> Option<i64> {
        loop {
            let attempt = begin(
                self.location.clone(),
                self.prefix.clone(),
                self.lease,
                self.length,
            );
            let begun = tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Begin(lease)) => {
                        self.begin(lease);
                        continue;
                    }
                    Some(Order::Leave) | None => return self.lease,
                },
                begun = self.meanwhile(attempt) => begun,
            };
            let error = match begun {
                Err(error) => error,
                Ok(mut session) => tokio::select! {
                    order = orders.recv() => match order {
                        Some(Order::Leave) => return self.lease,
                        Some(Order::Begin(None)) => {
                            self.begin(None);
                            continue;
                        }
                        order => {
                            // If not now, it ends by itself.
                            let _ = Lease::end(session.lease.id, &session.store).await;
                            let Some(Order::Begin(lease)) = order else {
                                return None;
                            };
                            self.begin(lease);
                            continue;
                        }
                    },
                    Err(error) = self.follow(&mut session) => error,
                },
            };
            self.view.send_if_modified(|view| {
                let error = Some(error.to_string());
                let news = view.error != error;
                view.error = error;
                news
            });
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Begin(lease)) => self.begin(lease),
                    Some(Order::Leave) | None => return self.lease,
                },
                () = self.meanwhile(sleep(RETRY)) => {}
            }
        }
    }

    /// Casts votes from now on.
    fn begin(&mut self, lease: Option<i64>) {
        self.casting = true;
        self.lease = lease.or(self.lease);
        // What is under the lease of the agent before this one is compared with these.
        while let Ok((candidate, vote)) = self.casts.try_recv() {
            self.own.cast(candidate, vote);
        }
    }

    /// Waits for something; a node that has been cut off for too long is alone meanwhile.
    async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        loop {
            let until = self.until();
            let mut casts = Vec::new();
            tokio::select! {
                done = &mut what => return done,
                _ = self.casts.recv_many(&mut casts, AT_ONCE), if self.casting && !self.casts.is_closed() => {
                    self.cast(casts);
                }
                () = sleep_until(until), if self.agreed => self.set_agreed(false),
            }
        }
    }

    /// Until when this node may take itself to be heard.
    fn until(&self) -> Instant {
        self.good
            .map_or_else(Instant::now, |good| good + self.length)
    }

    fn cast(&mut self, casts: Vec<Cast>) {
        for (candidate, vote) in casts {
            self.own.cast(candidate, vote);
        }
    }

    /// Sends votes and counts those that come, until something fails.
    async fn follow(&mut self, session: &mut Session) -> Result<Infallible, StoreError> {
        let Session {
            store,
            lease,
            found,
            watch,
        } = session;
        self.lease = Some(lease.id);
        self.length = lease.length;
        let touched = self.ballots.replace(found);
        found.clear();
        self.own.begin(&self.ballots, lease.id);
        self.tell(touched);
        let mut sending = pin!(Fuse::terminated());
        let mut next = Instant::now();
        // Whether all votes have been there, and since when etcd is to take others.
        let (mut begun, mut waiting) = (false, None);
        loop {
            let idle = sending.is_terminated();
            begun |= self.own.is_settled();
            waiting = match !idle || self.own.is_unsent() {
                true => waiting.or_else(|| Some(Instant::now())),
                false => None,
            };
            if begun {
                self.good = Some(waiting.map_or(lease.renewed, |since| since.min(lease.renewed)));
                if !self.agreed && Instant::now() < self.until() {
                    self.set_agreed(true);
                }
            }
            let until = self.until();
            let mut casts = Vec::new();
            tokio::select! {
                news = watch.all() => self.count(&news?, lease.id),
                renewed = lease.renewed() => renewed?,
                sent = &mut sending, if !idle => {
                    sent?;
                    waiting = None;
                }
                () = sleep_until(next), if idle && self.own.is_unsent() => {
                    next = Instant::now() + PAUSE;
                    let news = self.own.take_unsent().into_iter();
                    let news = news.map(|(part, value)| (key(&self.prefix, lease.id, part), value));
                    sending.set(store.clone().put_all(lease.id, news.collect()).fuse());
                }
                _ = self.casts.recv_many(&mut casts, AT_ONCE), if self.casting && !self.casts.is_closed() => {
                    self.cast(casts);
                }
                () = sleep_until(until), if self.agreed => self.set_agreed(false),
            }
        }
    }

    fn count(&mut self, news: &[News], lease: i64) {
        let touched = self.ballots.update(news);
        for (key, _) in news {
            if let Some((of, part)) = self.ballots.parse(key)
                && of == lease
            {
                self.own.see(part, &self.ballots, lease);
            }
        }
        self.tell(touched);
    }

    /// Tells the owner, and whoever looks, of what was counted.
    fn tell(&self, touched: HashSet<Candidate>) {
        let votes = touched.into_iter();
        let votes: Vec<_> = votes.map(|one| (one, self.ballots.tally(one))).collect();
        if !votes.is_empty() {
            // The owner may have ended.
            let _ = self.counted.send(Counted::Votes(votes));
        }
        let nodes = self.ballots.names();
        self.view.send_if_modified(|view| {
            let news = view.nodes != nodes;
            view.nodes = nodes;
            news
        });
    }

    fn set_agreed(&mut self, agreed: bool) {
        self.agreed = agreed;
        let _ = self.counted.send(Counted::Agreed(agreed));
        let error = self.view.borrow().error.clone();
        let error = error.unwrap_or_else(|| "etcd does not take this node's votes".to_owned());
        match agreed {
            true => events::info(
                Kind::Agreement,
                "",
                "health is what the majority of the nodes says",
            ),
            false => events::warn(
                Kind::Agreement,
                "",
                format!("health is what this node's own checks say: {error}"),
            ),
        }
        self.view.send_modify(|view| {
            view.agreed = agreed;
            view.since = now();
            view.error = (!agreed).then_some(error);
        });
    }
}

async fn begin(
    location: Location,
    prefix: String,
    lease: Option<i64>,
    length: Duration,
) -> Result<Session, StoreError> {
    let mut store = Store::connect(&location).await?;
    let lease = Lease::begin(&store, lease, length).await?;
    let (found, revision) = store.get_all(&prefix).await?;
    let watch = store.watch_all(&prefix, revision + 1).await?;
    Ok(Session {
        store,
        lease,
        found,
        watch,
    })
}
