//! VIPs that all nodes announce at the same time: each is on an interface for as long as this
//! node can serve it, where a routing daemon finds it.
//!
//! ```text
//! state --serving--v
//! config --------> keeper (a thread of its own): decide -> table -> kernel
//! ```

mod decide;
mod keeper;
mod table;
#[cfg(test)]
mod tests;
mod view;

use std::{collections::BTreeSet, net::IpAddr, thread};

use anyhow::Context as _;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Duration, sleep},
};

pub use self::view::{RouteState, RouteView, RoutesView};
use self::{keeper::Keeper, table::Table};
use super::{Serving, kernel::Kernel};
use crate::config::Config;

/// The thread that keeps announced VIPs; where none are configured, there is none.
pub struct Routes {
    views: watch::Receiver<RoutesView>,
    end: mpsc::Sender<End>,
    grace: Duration,
    runs: bool,
}

/// How the thread is to end.
enum End {
    /// Withdraw the VIPs; whether there were any.
    Withdraw(oneshot::Sender<bool>),
    /// Leave them for another agent of this node; which there are.
    Leave(oneshot::Sender<BTreeSet<IpAddr>>),
}

/// Starts the thread, in the calling thread's network namespace. `synced`: whether this node has
/// the flows of others, if it asks them for any; until then it announces nothing. `begun`: VIPs that an agent which this one goes on for announced.
///
/// # Errors
///
/// The kernel's, about sockets or threads.
pub fn spawn(
    config: &Config,
    serving: watch::Receiver<Serving>,
    synced: Option<watch::Receiver<bool>>,
    begun: BTreeSet<IpAddr>,
) -> anyhow::Result<Routes> {
    let (view, views) = watch::channel(RoutesView::default());
    let (end, ended) = mpsc::channel(1);
    let Some(routes) = config.ha.routes.clone() else {
        let grace = Duration::ZERO;
        return Ok(Routes {
            views,
            end,
            grace,
            runs: false,
        });
    };
    let grace = routes.grace;
    let interfaces = config.agent.interfaces.iter();
    let keeper = Keeper {
        ha: config.ha.clone(),
        routes,
        attached: interfaces.map(|interface| interface.name.clone()).collect(),
        serving,
        synced,
        kernel: Kernel::connect().context("announcing VIPs")?,
        views: view,
        table: Table::default(),
        begun,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    thread::Builder::new()
        .name("weir-routes".to_owned())
        .spawn(move || runtime.block_on(keeper.run(ended)))?;
    Ok(Routes {
        views,
        end,
        grace,
        runs: true,
    })
}

impl Routes {
    /// The VIPs, and every change of them.
    pub fn views(&self) -> watch::Receiver<RoutesView> {
        self.views.clone()
    }

    /// Returns when the thread has ended without having been told to, which is a bug.
    pub async fn failed(&self) {
        let mut views = self.views();
        if !self.runs {
            return std::future::pending().await;
        }
        while views.changed().await.is_ok() {}
    }

    /// Ends and leaves the VIPs where they are, for another agent of this node to go on at once:
    /// which there are.
    pub async fn leave(&self) -> BTreeSet<IpAddr> {
        let (reply, announced) = oneshot::channel();
        // Where there is no thread there are no VIPs.
        let _ = self.end.send(End::Leave(reply)).await;
        announced.await.unwrap_or_default()
    }

    /// Removes the VIPs, and returns when others may be taken to get their packets.
    pub async fn end(&self) {
        let (reply, announced) = oneshot::channel();
        if self.end.send(End::Withdraw(reply)).await.is_ok() && announced.await == Ok(true) {
            tracing::info!("forwarding for {:?} what still comes", self.grace);
            sleep(self.grace).await;
        }
    }
}
