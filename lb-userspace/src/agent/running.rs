//! An agent that serves, until it ends.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::{Sharing, node::Node};
use crate::{config::Config, ha, state::State, takeover::Sockets};

/// How long an agent that ends waits for the collector to take what is left.
const LAST_SPANS: Duration = Duration::from_secs(5);

/// An agent that serves. What it does for the node beside that, and its API, are still to come.
pub(super) struct Running {
    pub(super) sockets: Sockets,
    pub(super) state: State,
    pub(super) owner: JoinHandle<()>,
    /// Ends when the last span is on its way.
    pub(super) exporting: Option<JoinHandle<()>>,
    pub(super) served: watch::Receiver<ha::Serving>,
    pub(super) tables: Option<Arc<dyn ha::sync::Tables>>,
}

impl Running {
    /// Goes on until it ends. `known`: how it stood with the node when the agent before this one
    /// left it.
    pub(super) async fn run(
        self,
        config: Config,
        sharing: Option<Sharing>,
        known: ha::Known,
    ) -> anyhow::Result<()> {
        let Self {
            mut sockets,
            state,
            owner,
            exporting,
            served,
            tables,
        } = self;
        sockets.set_own(true);
        let node = sockets.sync_node(&config, tables, known.synced);
        let node =
            node.and_then(|sync| Node::start(&config, sharing, state.clone(), sync, served, known));
        let outcome = match node {
            Ok(node) => node.run(&config, &mut sockets).await,
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            // As where it had died: clients need not notice.
            state.let_go().await;
        }
        // The last of them: the owner ends and detaches the data path, if it still has it.
        drop(state);
        owner.await.context("the owner of the state")?;
        if let Some(exporting) = exporting {
            // A collector that does not answer is not waited for.
            let _ = timeout(LAST_SPANS, exporting).await;
        }
        outcome
    }
}

impl Sockets {
    /// Whether their files are this agent's.
    pub(super) fn set_own(&mut self, own: bool) {
        self.api.file.own = own;
        self.door.file.own = own;
    }

    /// Speaks with the nodes that are to know this one's flows.
    fn sync_node(
        &self,
        config: &Config,
        tables: Option<Arc<dyn ha::sync::Tables>>,
        synced: bool,
    ) -> anyhow::Result<Option<ha::sync::Node>> {
        let socket = self.sync.as_ref().map(UdpSocket::try_clone).transpose()?;
        ha::sync::start(&config.ha, tables, socket, synced)
    }
}
