//! What the agent does for the node beside serving: the API, shared configuration, addresses and
//! routes; and how it ends or is replaced.

use anyhow::anyhow;
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::Sharing;
use crate::{
    api,
    config::Config,
    ha, shared,
    state::State,
    takeover::{self, Given, Sockets},
};

/// What the agent does for the node beside serving.
pub(super) struct Node {
    state: State,
    following: Option<shared::Running>,
    voting: Option<shared::Voting>,
    sync: Option<ha::sync::Node>,
    ha: ha::Ha,
    routes: ha::routes::Routes,
}

/// Why it does so no more.
enum End {
    /// It is told to end.
    Told,
    /// It cannot go on.
    Failed(anyhow::Error),
    /// Another agent has the data path.
    Given(Given),
}

impl Node {
    pub(super) fn start(
        config: &Config,
        sharing: Option<Sharing>,
        state: State,
        sync: Option<ha::sync::Node>,
        served: watch::Receiver<ha::Serving>,
        known: ha::Known,
    ) -> anyhow::Result<Self> {
        let (state, following, voting) = match sharing {
            None => (state, None, None),
            Some(Sharing { opened, voting }) => {
                let (handle, running) = shared::spawn(opened, state.clone(), voting.as_ref())?;
                if let Some(voting) = &voting {
                    voting.begin(known.lease);
                }
                (state.sharing(handle), Some(running), voting)
            }
        };
        // Last: whoever takes addresses can serve them.
        let synced = sync.as_ref().map(|sync| sync.synced.clone());
        let ha = ha::spawn(&config.ha, served.clone(), synced.clone(), &known.groups)?;
        let routes = ha::routes::spawn(config, served, synced, known.announced)?;
        Ok(Self {
            state,
            following,
            voting,
            sync,
            ha,
            routes,
        })
    }

    /// Serves the API until something ends it, and ends.
    pub(super) async fn run(self, config: &Config, sockets: &mut Sockets) -> anyhow::Result<()> {
        let end = self.serve(config, sockets).await;
        let Self {
            state,
            following,
            voting,
            sync,
            ha,
            routes,
        } = self;
        drop(following);
        drop(state);
        let outcome = match end {
            Ok(End::Given(given)) => {
                sockets.set_own(false);
                let lease = match voting {
                    Some(voting) => voting.leave().await,
                    None => None,
                };
                let known = ha::Known {
                    lease,
                    announced: routes.leave().await,
                    groups: ha.leave().await,
                    synced: sync.as_ref().is_some_and(|sync| *sync.synced.borrow()),
                };
                if let Some(sync) = sync {
                    sync.end().await;
                }
                if let Some(process) = given.process() {
                    tell_manager(NotifyState::MainPid(process));
                }
                given.leave(known).await;
                tracing::info!("another agent has taken over; what is under way here may end");
                return Ok(());
            }
            Ok(End::Told) => Ok(()),
            Ok(End::Failed(error)) | Err(error) => Err(error),
        };
        tell_manager(NotifyState::Stopping);
        // Others take over while the data path still serves.
        tokio::join!(routes.end(), ha.end());
        if let Some(voting) = voting {
            voting.end().await;
        }
        outcome
    }

    async fn serve(&self, config: &Config, sockets: &mut Sockets) -> anyhow::Result<End> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut renew = signal(SignalKind::user_defined2())?;
        let peers = self.sync.as_ref().map(|sync| sync.peers.clone());
        let views = self.routes.views();
        let router = api::router(self.state.clone(), self.ha.clone(), peers, views);
        let mut serving = sockets.api.serve(&router)?;
        let admin = &config.agent.admin;
        tracing::info!(socket = %admin.socket.display(), listen = ?admin.listen, "ready");
        tell_manager(NotifyState::Ready);
        loop {
            let link = tokio::select! {
                failed = serving.failed() => {
                    let error = failed.err().unwrap_or_else(|| anyhow!("it has ended"));
                    return Ok(End::Failed(error.context("admin API")));
                }
                () = self.ha.failed() => {
                    let error = anyhow!("the thread that keeps the addresses has ended");
                    return Ok(End::Failed(error));
                }
                () = self.routes.failed() => {
                    let error = anyhow!("the thread that announces VIPs has ended");
                    return Ok(End::Failed(error));
                }
                _ = interrupt.recv() => {
                    tracing::info!("interrupted");
                    return Ok(End::Told);
                }
                _ = terminate.recv() => {
                    tracing::info!("terminated");
                    return Ok(End::Told);
                }
                _ = renew.recv() => {
                    match takeover::successor::start() {
                        Ok(()) => tracing::info!("another agent is started to take over"),
                        Err(error) => tracing::error!("starting another agent: {error}"),
                    }
                    continue;
                }
                link = sockets.door.accept(&config.agent) => link,
            };
            tracing::info!("another agent begins to take over");
            // What comes meanwhile waits for whoever serves then.
            serving.stop();
            match takeover::give(link, &self.state, sockets).await {
                Ok(given) => return Ok(End::Given(given)),
                Err(why) => {
                    tracing::warn!(
                        "the other agent has not taken over, and this one goes on: {why:#}"
                    );
                }
            }
            serving = sockets.api.serve(&router)?;
        }
    }
}

/// Tells systemd, or who else has started this agent, if they want to know (`sd_notify(3)`).
fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!("telling the service manager: {error}");
    }
}
