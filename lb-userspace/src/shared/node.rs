//! The task that keeps this node's configuration and the document in etcd the same.

use std::{path::PathBuf, pin::pin, time::Duration};

use futures::FutureExt as _;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Handle, Location, NotShared, Opened, Origin, Request, SharedView, Voting,
    store::{Store, StoreError, Stored, Watch},
};
use crate::{
    config::{Live, Local, Problems},
    events::{self, Kind},
    state::State,
};

/// Changes that may wait.
const WAITING: usize = 256;
/// Between two attempts to reach etcd.
const RETRY: Duration = Duration::from_millis(500);
/// Between two attempts to use a document that could not be used for reasons outside it.
const AGAIN: Duration = Duration::from_secs(5);

pub(super) struct Node {
    pub(super) location: Location,
    pub(super) copy: PathBuf,
    pub(super) local: Local,
    /// Whom to tell; changes that go there are this node's alone.
    pub(super) state: State,
    pub(super) view: watch::Sender<SharedView>,
    /// The revision of the document in etcd that was seen last; 0: there is none.
    pub(super) seen: i64,
    /// That document with the local part; nothing where it cannot be used here.
    pub(super) live: Option<Live>,
}

/// The task; it ends when this is dropped.
pub struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts it. `state` is the owner with the configuration of `opened`; `voting` is how nodes agree
/// on health, if they do.
///
/// # Errors
///
/// What is wrong with the configuration.
pub fn spawn(
    opened: Opened,
    state: State,
    voting: Option<&Voting>,
) -> Result<(Handle, Running), Problems> {
    let Opened {
        config,
        options,
        local,
        origin,
        revision,
    } = opened;
    let address = options.location.to_string();
    let (view, seen) = watch::channel(SharedView::new(address, origin, revision));
    let node = Node {
        location: options.location,
        copy: options.copy,
        local,
        state,
        view,
        // What is on disk says nothing of what is in etcd now.
        seen: match origin {
            Origin::Etcd => revision,
            Origin::Disk => 0,
        },
        live: Some(Live::new(config)?),
    };
    let (requests, incoming) = mpsc::channel(WAITING);
    let task = tokio::spawn(node.run(incoming));
    let handle = Handle {
        requests,
        view: seen,
        votes: voting.map(Voting::view),
    };
    Ok((handle, Running(task.abort_handle())))
}

/// What a connection begins with.
struct Session {
    store: Store,
    found: Option<Stored>,
    watch: Watch,
}

impl Node {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        if self.view.borrow().origin == Origin::Etcd {
            self.in_force().await;
        }
        loop {
            let location = self.location.clone();
            let attempt = begin(&location);
            let error = match self.meanwhile(attempt, &mut requests).await {
                None => return,
                Some(Err(error)) => error,
                Some(Ok(session)) => match self.follow(session, &mut requests).await {
                    Ok(()) => return,
                    Err(error) => error,
                },
            };
            let error = error.to_string();
            let news = |view: &mut SharedView| view.set_connected(Some(error.clone()));
            let first = self.view.borrow().error.is_none();
            if self.view.send_if_modified(news) || first {
                let text = format!("it cannot be reached, and what is in force stays: {error}");
                events::warn(Kind::Configuration, &self.location, text);
            }
            if self.meanwhile(sleep(RETRY), &mut requests).await.is_none() {
                return;
            }
        }
    }

    /// Waits for something; nothing when nobody will ask for changes any more. They are refused
    /// meanwhile, unless nothing has failed yet.
    async fn meanwhile<T>(
        &self,
        what: impl Future<Output = T>,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Option<T> {
        let error = self.view.borrow().error.clone();
        let mut what = pin!(what.fuse());
        loop {
            tokio::select! {
                done = &mut what => return Some(done),
                request = requests.recv(), if error.is_some() => {
                    let error = error.clone().unwrap_or_default();
                    request?.refuse(NotShared::Unreachable(error));
                }
            }
        }
    }

    /// Follows the document and makes changes, until nobody will ask for one any more.
    async fn follow(
        &mut self,
        session: Session,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<(), StoreError> {
        let Session {
            mut store,
            found,
            mut watch,
        } = session;
        if (self.view).send_if_modified(|view| view.set_connected(None)) {
            events::info(Kind::Configuration, &self.location, "etcd answers");
        }
        self.take(found).await;
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                news = watch.next() => {
                    let news = news?;
                    // What this node has put there, or has seen already.
                    let old = |found: &Stored| found.revision <= self.seen;
                    if !news.as_ref().is_some_and(old) {
                        self.take(news).await;
                    }
                }
                request = requests.recv() => match request {
                    None => return Ok(()),
                    Some(request) => self.change(&mut store, request).await?,
                },
                _ = again.tick(), if self.live.is_none() => {
                    let (found, _) = store.get(&self.location.key).await?;
                    self.take(found).await;
                }
            }
        }
    }
}

async fn begin(location: &Location) -> Result<Session, StoreError> {
    let mut store = Store::connect(location).await?;
    let (found, revision) = store.get(&location.key).await?;
    let watch = store.watch(&location.key, revision + 1).await?;
    Ok(Session {
        store,
        found,
        watch,
    })
}
