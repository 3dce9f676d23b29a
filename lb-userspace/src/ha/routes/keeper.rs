//! The thread that keeps announced VIPs: it prolongs them while they can be served, so that the
//! kernel takes them away when it does not.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use super::{
    super::{Serving, interfaces::Interfaces, kernel::Kernel},
    End, RouteState,
    decide::decide,
    table::Table,
    view::RoutesView,
};
use crate::config::{Ha, ha::Routes};

/// How often XDP programs and the interface are looked at: of programs the kernel does not tell.
const LOOK: Duration = Duration::from_secs(1);

/// What it works with.
pub(super) struct Keeper {
    pub(super) ha: Ha,
    pub(super) routes: Routes,
    /// Interfaces that need an XDP program.
    pub(super) attached: Vec<String>,
    pub(super) serving: watch::Receiver<Serving>,
    /// Whether this node has the others' flows.
    pub(super) synced: Option<watch::Receiver<bool>>,
    pub(super) kernel: Kernel,
    pub(super) views: watch::Sender<RoutesView>,
    pub(super) table: Table,
    /// VIPs whose backends have all been checked once.
    pub(super) begun: BTreeSet<IpAddr>,
}

impl Keeper {
    /// Runs until it is told to end; it is told how.
    pub(super) async fn run(mut self, mut end: mpsc::Receiver<End>) {
        let mut ticks = interval(LOOK.min(self.routes.lease / 3));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.follow();
            tokio::select! {
                asked = end.recv() => {
                    // Who asked may have left.
                    match asked {
                        Some(End::Leave(reply)) => drop(reply.send(self.announced())),
                        Some(End::Withdraw(reply)) => drop(reply.send(self.withdraw())),
                        None => _ = self.withdraw(),
                    }
                    return;
                }
                _ = ticks.tick() => {}
                changed = self.serving.changed() => if changed.is_err() {
                    self.withdraw();
                    return;
                },
                true = ready(&mut self.synced) => self.synced = None,
            }
        }
    }

    fn follow(&mut self) {
        let mut interfaces = Interfaces::default();
        let names = self.attached.iter().chain([&self.routes.interface]);
        for name in names {
            // One that is not there is not in the table either.
            let _ = self.kernel.look_at(name, &mut interfaces);
        }
        let obstacle = self.obstacle(&interfaces);
        let decisions = decide(
            &self.ha,
            &self.routes,
            &self.serving.borrow_and_update(),
            obstacle.as_deref(),
            &mut self.begun,
        );
        let name = self.routes.interface.as_str();
        let index = interfaces.get(name).map(|interface| interface.index);
        let lease = self.routes.lease.as_secs() as u32;
        self.table
            .follow(&mut self.kernel, (name, index), lease, &decisions);
        self.publish();
    }

    /// Why this node can serve nothing.
    fn obstacle(&self, interfaces: &Interfaces) -> Option<String> {
        let attached = |name: &&String| interfaces.get(name).is_some_and(|is| is.xdp);
        if let Some(name) = self.attached.iter().find(|name| !attached(name)) {
            return Some(format!("{name} has no XDP program"));
        }
        let synced = self.synced.is_none();
        (!synced).then(|| "the other nodes' flows are not here yet".to_owned())
    }

    fn announced(&self) -> BTreeSet<IpAddr> {
        let views = self.table.views.iter();
        let announced = views.filter(|(_, view)| view.state == RouteState::Announced);
        announced.map(|(vip, _)| *vip).collect()
    }

    fn withdraw(&mut self) -> bool {
        let name = self.routes.interface.as_str();
        let mut interfaces = Interfaces::default();
        let _ = self.kernel.look_at(name, &mut interfaces);
        let index = interfaces.get(name).map(|interface| interface.index);
        let announced = (self.table).clear(&mut self.kernel, (name, index), "the agent is ending");
        self.publish();
        announced
    }

    fn publish(&self) {
        self.views.send_if_modified(|views| {
            let differ = *views != self.table.views;
            if differ {
                views.clone_from(&self.table.views);
            }
            differ
        });
    }
}

/// Returns true when a node has the others' flows: what it has it keeps, whoever joins later.
async fn ready(synced: &mut Option<watch::Receiver<bool>>) -> bool {
    match synced {
        Some(synced) => synced.wait_for(|synced| *synced).await.is_ok(),
        None => std::future::pending().await,
    }
}
