//! The one owner of what is wanted: configuration and health come in, the data path is told.
//! Everybody else holds a [`State`] and asks.

mod compile;
mod conditions;
mod drains;
mod health;
mod owner;
mod ramps;
mod view;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::drains::Name;
pub use self::{
    drains::DrainView,
    owner::{Parts, spawn},
    view::{BackendView, HealthView, PoolView, ServiceView, StatusView, View},
};
use crate::{
    config::{Config, Problems},
    dataplane::{ApplyError, Explanation, Question},
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
    Drain(Name, Option<Duration>, oneshot::Sender<Result<(), Refused>>),
    Undrain(Name, oneshot::Sender<Result<(), Refused>>),
    Explain(Question, oneshot::Sender<anyhow::Result<Explanation>>),
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
        self.ask(|reply| Command::Change(edit, reply)).await??;
        made.await.map_err(|_| Refused::Ending)
    }

    /// Drains a backend: it keeps its flows and gets no new ones, until none is left or the
    /// deadline has passed.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub async fn drain(
        &self,
        pool: String,
        backend: String,
        deadline: Option<Duration>,
    ) -> Result<(), Refused> {
        self.ask(|reply| Command::Drain((pool, backend), deadline, reply))
            .await?
    }

    /// Undoes [`State::drain`]; one that is not drained stays as it is.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub async fn undrain(&self, pool: String, backend: String) -> Result<(), Refused> {
        self.ask(|reply| Command::Undrain((pool, backend), reply))
            .await?
    }

    /// What would become of a client's packet.
    ///
    /// # Errors
    ///
    /// The kernel's, from reading the maps; or that the agent is ending.
    pub async fn explain(&self, question: Question) -> anyhow::Result<Explanation> {
        self.ask(|reply| Command::Explain(question, reply)).await?
    }

    /// Everything there is to see at this moment.
    ///
    /// # Errors
    ///
    /// The kernel's, from reading counters; or that the agent is ending.
    pub async fn view(&self) -> anyhow::Result<View> {
        self.ask(Command::View).await?
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(command(reply)).await;
        sent.map_err(|_| Refused::Ending)?;
        answer.await.map_err(|_| Refused::Ending)
    }
}
