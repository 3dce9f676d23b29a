//! Changes of the configuration that are to be made in the data path together.

use tokio::sync::oneshot;

use super::Refused;
use crate::config::{Changed, Touched};

/// Changes that are in the configuration already, and who waits for them.
#[derive(Default)]
pub(super) struct Pending {
    changes: Vec<Changed>,
    touched: Touched,
    replies: Vec<oneshot::Sender<Result<(), Refused>>>,
}

impl Pending {
    pub(super) fn add(&mut self, changed: Changed, reply: oneshot::Sender<Result<(), Refused>>) {
        self.touched.add(changed.touched());
        self.changes.push(changed);
        self.replies.push(reply);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What they touch.
    pub(super) fn touched(&self) -> &Touched {
        &self.touched
    }

    /// What undoes them, in this order.
    pub(super) fn undo(&mut self) -> impl Iterator<Item = Changed> {
        self.changes.drain(..).rev()
    }

    /// Tells who waits. What one is told in full, the others, if any, are told of.
    pub(super) fn answer(self, result: Result<(), Refused>) {
        let mut replies = self.replies.into_iter();
        let others = result.is_ok();
        // Who asked may have left; the changes stand.
        if let Some(reply) = replies.next() {
            drop(reply.send(result));
        }
        for reply in replies {
            drop(reply.send(match others {
                true => Ok(()),
                false => Err(Refused::Together),
            }));
        }
    }
}
