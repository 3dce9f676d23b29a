//! A configuration that nodes share: a document under a key in etcd, of which every node keeps
//! a copy on disk.
//!
//! A change over one node's API is made there first, then put into etcd if nobody else has put
//! something there meanwhile, and reaches the other nodes because they watch the key.

mod change;
mod copy;
mod follow;
mod lease;
mod location;
mod node;
mod open;
mod push;
mod store;
mod view;
mod votes;

use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use self::votes::{Cast, Counted};
pub use self::{
    location::{Location, NoLocation, Tls},
    node::{Running, spawn},
    open::{Opened, Options, open},
    push::push,
    store::StoreError,
    view::{NotInForce, Origin, SharedView},
    votes::{AgreementView, Votes, Voting, start as vote},
};
use crate::{
    config::{Draft, Problems},
    state::Refused,
};

/// A change that may have to be made again, on top of another node's.
pub(crate) type Edit = Box<dyn FnMut(&mut Draft<'_>) -> Result<(), Refused> + Send>;

/// A change, and who waits for it.
struct Request {
    edit: Edit,
    reply: oneshot::Sender<Result<(), Refused>>,
}

/// A way to change what is shared.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    view: watch::Receiver<SharedView>,
    votes: Option<watch::Receiver<AgreementView>>,
}

impl Handle {
    /// Makes a change, or none of it. It is in this node's data path and in etcd when this
    /// returns.
    pub(crate) async fn change(&self, edit: Edit) -> Result<(), Refused> {
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.send(Request { edit, reply }).await;
        sent.map_err(|_| Refused::Ending)?;
        answer.await.map_err(|_| Refused::Ending)?
    }

    /// How it stands.
    pub fn view(&self) -> SharedView {
        SharedView {
            health: self.votes.as_ref().map(|view| view.borrow().clone()),
            ..self.view.borrow().clone()
        }
    }
}

/// Why a change of what is shared was not made.
#[derive(Debug, thiserror::Error)]
pub enum NotShared {
    /// etcd cannot be asked.
    #[error("nothing was changed, as the shared configuration cannot be reached: {0}")]
    Unreachable(String),
    /// It was asked, and did not answer.
    #[error(
        "it is not known whether the change was made: etcd was told of it, and then: {0}; \
         ask again what is in force"
    )]
    Unknown(String),
    /// etcd has refused it.
    #[error("nothing was changed, as etcd refuses it: {0}")]
    Rejected(String),
    /// Somebody else has changed the same at the same time.
    #[error(
        "nothing was changed: another node has changed {0} at the same time; \
         look at it and try again"
    )]
    Conflict(String),
    /// Others change it all the time.
    #[error("nothing was changed: other nodes have changed the configuration {0} times meanwhile")]
    Overtaken(u32),
    /// There is no document.
    #[error(
        "nothing was changed: there is no document under {0}; make one with `weir config push`"
    )]
    Missing(String),
    /// The document cannot be used.
    #[error(
        "nothing was changed: the document in etcd cannot be used on this node, so put it right \
         with `weir config push`: {0}"
    )]
    Unusable(String),
}

/// Everything that is wrong, on one line.
fn one_line(problems: &Problems) -> String {
    let problems = problems.0.iter().map(ToString::to_string);
    problems.collect::<Vec<_>>().join("; ")
}
