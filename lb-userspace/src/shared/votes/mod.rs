//! How nodes that share their configuration agree on health: each puts what its checks say into
//! etcd, under a lease that ends with it, and acts on the majority of what is there.
//!
//! ```text
//! checks -> state --casts--> task: own -> etcd -> ballots --counted--> state: majority
//! ```
//!
//! A node's own vote counts when it has come back from etcd: so what nodes act on is a function of
//! what is in etcd alone, the same on all.

mod ballots;
mod own;
mod task;
mod view;

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use self::task::Task;
pub use self::view::AgreementView;
use super::{Opened, Origin};
use crate::health::vote::{Candidate, Tally};

/// How long a start waits for the others' votes.
const FIRST: Duration = Duration::from_secs(3);
/// How long an end waits for etcd to take the votes back.
const LAST: Duration = Duration::from_secs(1);

/// What this node's checks say of a backend; nothing when it is not checked any more.
pub(crate) type Cast = (Candidate, Option<bool>);

/// What is known of all votes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// These backends have so many votes now.
    Votes(Vec<(Candidate, Tally)>),
    /// Whether the majority is to be acted on: this node hears the others and is heard.
    Agreed(bool),
}

/// Votes to cast, and those that were counted.
pub struct Votes {
    pub(crate) casts: mpsc::UnboundedSender<Cast>,
    pub(crate) counted: mpsc::UnboundedReceiver<Counted>,
}

/// The task that votes.
pub struct Voting {
    view: watch::Receiver<AgreementView>,
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<Option<i64>>,
}

enum Order {
    /// To cast votes from now on, under this lease if there is one and it lasts.
    Begin(Option<i64>),
    /// To end, and to leave the lease to another agent.
    Leave,
}

/// Begins to count votes, unless each node is to act alone. Where etcd answers, all votes that are
/// there are counted when this returns. Votes are not cast before [`Voting::begin`]: until then an
/// agent from which this one takes over may speak for the node.
pub async fn start(opened: &Opened) -> Option<(Votes, Voting)> {
    let health = opened.config.ha.health;
    if !health.agree {
        return None;
    }
    let (casts, cast) = mpsc::unbounded_channel();
    let (count, counted) = mpsc::unbounded_channel();
    let (view, mut seen) = watch::channel(AgreementView::new());
    let (orders, ordered) = mpsc::unbounded_channel();
    let task = Task::new(
        opened.options.location.clone(),
        health.lease,
        cast,
        count,
        view,
    );
    let task = tokio::spawn(task.run(ordered));
    if opened.origin == Origin::Etcd {
        let agreed = seen.wait_for(|view| view.agreed || view.error.is_some());
        // Else it goes on alone, and agrees later.
        let _ = timeout(FIRST, agreed).await;
    }
    let votes = Votes { casts, counted };
    let view = seen;
    Some((votes, Voting { view, orders, task }))
}

impl Voting {
    /// How it stands.
    pub(super) fn view(&self) -> watch::Receiver<AgreementView> {
        self.view.clone()
    }

    /// Casts votes from now on. `lease`: that of the agent before this one, whose votes stand until
    /// this one's differ.
    pub fn begin(&self, lease: Option<i64>) {
        // It ends with this.
        let _ = self.orders.send(Order::Begin(lease));
    }

    /// Takes this node's votes back, where that can be done soon.
    pub async fn end(self) {
        drop(self.orders);
        let _ = timeout(LAST, self.task).await;
    }

    /// Ends, and leaves the votes to another agent, with the lease that they are under.
    pub async fn leave(self) -> Option<i64> {
        let _ = self.orders.send(Order::Leave);
        self.task.await.ok().flatten()
    }
}
