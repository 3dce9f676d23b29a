//! The one owner of what is wanted: configuration and health come in, the data path is told.
//! Everybody else holds a [`State`] and asks.

mod compile;
mod health;
mod owner;
mod view;

use tokio::sync::{mpsc, oneshot};

pub use self::{
    owner::{Parts, spawn},
    view::{BackendView, HealthView, PoolView, ServiceView, StatusView, View},
};
use crate::{
    config::{Config, Problems},
    dataplane::ApplyError,
};

/// Why a change was not made; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It names something that does not exist.
    #[error("there is no {what} \"{name}\"")]
    NotFound {
        /// `service`, `pool` or `backend`.
        what: &'static str,
        /// As it was asked for.
        name: String,
    },
    /// The result would break the rules.
    #[error("{0}")]
    Invalid(Problems),
    /// The data path cannot take it.
    #[error(transparent)]
    DataPlane(#[from] ApplyError),
    /// The agent is ending.
    #[error("the agent is shutting down")]
    Ending,
}

type Edit = Box<dyn FnOnce(&mut Config) -> Result<(), Refused> + Send>;

enum Command {
    Change(Edit, oneshot::Sender<Result<(), Refused>>),
    View(oneshot::Sender<anyhow::Result<View>>),
}

/// A way to ask the owner.
#[derive(Clone)]
pub struct State {
    commands: mpsc::Sender<Command>,
}

impl State {
    /// Makes a change, or none of it. It is in the data path when this returns.
    ///
    /// # Errors
    ///
    /// See [`Refused`]; or what `edit` returned.
    pub async fn change<R: Send + 'static>(
        &self,
        edit: impl FnOnce(&mut Config) -> Result<R, Refused> + Send + 'static,
    ) -> Result<R, Refused> {
        let (result, made) = oneshot::channel();
        let edit = Box::new(move |config: &mut Config| {
            // Who asked may have left; the change stands.
            drop(result.send(edit(config)?));
            Ok(())
        });
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::Change(edit, reply))
            .await
            .map_err(|_| Refused::Ending)?;
        answer.await.map_err(|_| Refused::Ending)??;
        made.await.map_err(|_| Refused::Ending)
    }

    /// Everything there is to see at this moment.
    ///
    /// # Errors
    ///
    /// The kernel's, from reading counters; or that the agent is ending.
    pub async fn view(&self) -> anyhow::Result<View> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::View(reply))
            .await
            .map_err(|_| Refused::Ending)?;
        answer.await.map_err(|_| Refused::Ending)?
    }
}
