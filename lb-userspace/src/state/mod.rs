//! The one owner of what is wanted: configuration and health come in, the data path is told.
//! Everybody else holds a [`State`] and asks.

mod agreement;
mod apply;
mod compile;
mod conditions;
mod drains;
mod handover;
mod health;
mod look;
mod next_hops;
mod owner;
mod pending;
mod ramps;
mod reach;
mod serving;
mod view;

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::{mpsc, oneshot};

pub use self::{
    drains::DrainView,
    handover::{Known, KnownDrain, KnownHealth, News, Offer},
    owner::{Parts, spawn},
    view::{BackendView, HealthView, HereView, PoolView, ServiceView, StatusView},
};
use self::{drains::Name, owner::Owner};
use crate::{
    config::{Config, Draft, Problems},
    dataplane::{ApplyError, Explanation, Question},
    proxy::Unready,
    shared::{self, NotShared, SharedView},
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
    /// It was to be made with others, and the data path could not make them.
    #[error("a change that came at the same time failed in the data path, and this one with it")]
    Together,
    /// The proxy cannot get ready for it.
    #[error(transparent)]
    Unready(#[from] Unready),
    /// The proxy's workers cannot be started.
    #[error("the HTTP proxy: {0:#}")]
    Proxy(anyhow::Error),
    /// The data path cannot be attached.
    #[error("{0:#}")]
    Unattached(anyhow::Error),
    /// The configuration is shared, and the others' part of it was not changed.
    #[error(transparent)]
    Shared(#[from] NotShared),
    /// The agent is ending.
    #[error("the agent is shutting down")]
    Ending,
}

impl Refused {
    /// There is no such thing of this name.
    pub fn not_found(what: &'static str, name: &str) -> Self {
        let name = name.to_owned();
        Self::NotFound { what, name }
    }
}

impl From<Problems> for Refused {
    fn from(problems: Problems) -> Self {
        Self::Invalid(problems)
    }
}

type Edit = Box<dyn FnOnce(&mut Draft<'_>) -> Result<(), Refused> + Send>;
type Look = Box<dyn FnOnce(&Owner) + Send>;

enum Command {
    Change(Edit, oneshot::Sender<Result<(), Refused>>),
    Drain(Name, Option<Duration>, oneshot::Sender<Result<(), Refused>>),
    Undrain(Name, oneshot::Sender<Result<(), Refused>>),
    Explain(Question, oneshot::Sender<anyhow::Result<Explanation>>),
    Look(Look),
    LetGo(oneshot::Sender<()>),
    Offer(oneshot::Sender<anyhow::Result<Offer>>),
}

/// A way to ask the owner.
#[derive(Clone)]
pub struct State {
    commands: mpsc::Sender<Command>,
    /// Where changes go if the configuration is shared.
    shared: Option<shared::Handle>,
}

impl State {
    /// The same, for who is to change what nodes share.
    pub fn sharing(self, shared: shared::Handle) -> Self {
        let shared = Some(shared);
        Self { shared, ..self }
    }

    /// How it stands with the shared configuration, if it is shared.
    pub fn shared(&self) -> Option<SharedView> {
        self.shared.as_ref().map(shared::Handle::view)
    }

    /// Makes a change, or none of it. It is in the data path, and in the shared configuration
    /// if there is one, when this returns. `edit` may be made again on top of other nodes'
    /// changes.
    ///
    /// # Errors
    ///
    /// See [`Refused`]; or what `edit` returned.
    pub async fn change<R: Send + 'static>(
        &self,
        edit: impl FnOnce(&mut Draft<'_>) -> Result<R, Refused> + Clone + Send + 'static,
    ) -> Result<R, Refused> {
        let Some(shared) = &self.shared else {
            return self.change_here(edit).await;
        };
        let (result, made) = std::sync::mpsc::channel();
        let edit = move |draft: &mut Draft<'_>| {
            // Who asked may have left; the change stands.
            drop(result.send(edit.clone()(draft)?));
            Ok(())
        };
        shared.change(Box::new(edit)).await?;
        // What the last attempt has made.
        made.try_iter().last().ok_or(Refused::Ending)
    }

    /// Makes a change, or none of it, of this node alone.
    ///
    /// # Errors
    ///
    /// As [`State::change`].
    pub async fn change_here<R: Send + 'static>(
        &self,
        edit: impl FnOnce(&mut Draft<'_>) -> Result<R, Refused> + Send + 'static,
    ) -> Result<R, Refused> {
        let (result, made) = oneshot::channel();
        let edit = Box::new(move |draft: &mut Draft<'_>| {
            // Who asked may have left; the change stands.
            drop(result.send(edit(draft)?));
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

    /// The agent and its data path.
    ///
    /// # Errors
    ///
    /// The kernel's, from reading counters; or that the agent is ending.
    pub async fn status(&self) -> anyhow::Result<StatusView> {
        self.look(Owner::status).await?
    }

    /// The configuration as it is in force.
    ///
    /// # Errors
    ///
    /// That the agent is ending.
    pub async fn config(&self) -> Result<Config, Refused> {
        self.look(|owner| owner.live.config().clone()).await
    }

    /// Services by name.
    ///
    /// # Errors
    ///
    /// As [`State::status`].
    pub async fn services(&self) -> anyhow::Result<BTreeMap<String, ServiceView>> {
        self.look(Owner::services).await?
    }

    /// A service, if there is one of that name.
    ///
    /// # Errors
    ///
    /// As [`State::status`].
    pub async fn service(&self, name: String) -> anyhow::Result<Option<ServiceView>> {
        self.look(move |owner| owner.service(&name)).await?
    }

    /// Pools by name.
    ///
    /// # Errors
    ///
    /// As [`State::status`].
    pub async fn pools(&self) -> anyhow::Result<BTreeMap<String, PoolView>> {
        self.look(Owner::pools).await?
    }

    /// A pool, if there is one of that name.
    ///
    /// # Errors
    ///
    /// As [`State::status`].
    pub async fn pool(&self, name: String) -> anyhow::Result<Option<PoolView>> {
        self.look(move |owner| owner.pool(&name)).await?
    }

    /// A backend, or that there is no such pool or backend.
    ///
    /// # Errors
    ///
    /// As [`State::status`].
    pub async fn backend(
        &self,
        pool: String,
        name: String,
    ) -> anyhow::Result<Result<BackendView, Refused>> {
        self.look(move |owner| owner.backend(&pool, &name)).await?
    }

    /// Ends the owner as the death of the agent would: what of the data path is pinned goes on as
    /// it is, for the next agent to take. Returns when that may begin.
    pub async fn let_go(&self) {
        // An owner that has ended has let go, or has detached.
        let _ = self.ask(Command::LetGo).await;
    }

    /// Offers the data path and the proxy's sockets to another agent. Until it is known whether
    /// that has taken them, requests wait.
    ///
    /// # Errors
    ///
    /// Nothing is pinned; or the kernel's.
    pub async fn offer(&self) -> anyhow::Result<Offer> {
        self.ask(Command::Offer).await?
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Owner) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        self.ask(|reply| Command::Look(Box::new(move |owner| drop(reply.send(look(owner))))))
            .await
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
