//! High availability: several nodes, of which one holds each virtual address (VRRPv3).
//!
//! ```text
//! config -> keeper (a thread of its own) -> set: machine, links -> wire, kernel, announce
//! track (tasks) --verdicts--^        ^--roles, views--> api, whoever syncs flows
//! ```

mod announce;
mod checksum;
mod handover;
mod interfaces;
mod keeper;
mod kernel;
mod link;
mod log;
mod realtime;
pub mod routes;
mod rules;
mod set;
pub mod sync;
mod track;
mod view;
pub mod vrrp;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

pub use self::{
    handover::{Known, KnownGroup, KnownRule},
    view::{GroupCounters, GroupView, PeerView, TrackView, TransitionView},
    vrrp::Role,
};
use self::{
    keeper::{Command, Keeper, Roles},
    log::Log,
};
use crate::config::ha;

/// Services by name, as far as shared addresses depend on them.
pub type Serving = Arc<BTreeMap<String, Served>>;

/// How it stands with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// The VIP.
    pub address: IpAddr,
    /// Whether a backend takes new flows and not all fail their checks. Those that have not been
    /// checked yet do not fail.
    pub usable: bool,
    /// Whether a backend passes its checks, or has none, be it drained.
    pub healthy: bool,
    /// Whether all backends have been checked. Until then their share of the table is not what it
    /// is on nodes that know them.
    pub checked: bool,
}

/// Why a group was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum NotHandedOver {
    /// There is none of this name.
    #[error("there is no group \"{0}\"")]
    NotFound(String),
    /// Another node has it, or none.
    #[error("this node is not the active one of {0}: ask the node that is")]
    NotActive(String),
    /// The agent is ending.
    #[error("the agent is shutting down")]
    Ending,
}

/// A way to ask the thread that keeps the addresses; where there are no groups, there is none.
#[derive(Clone)]
pub struct Ha(Arc<Inner>);

struct Inner {
    groups: BTreeSet<String>,
    orders: Orders,
    roles: watch::Receiver<Roles>,
    thread: Mutex<Option<JoinHandle<()>>>,
    // Ends with this.
    _tracking: JoinSet<()>,
}

/// Commands for the thread.
#[derive(Clone)]
struct Orders {
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
}

impl Orders {
    /// Whether there is a thread to do it.
    fn give(&self, command: Command) -> bool {
        self.commands.send(command).is_ok() && self.wake.write(1).is_ok()
    }
}

/// Starts the thread, in the calling thread's network namespace; within a tokio runtime. `known`:
/// how it stood with the groups of an agent that this one goes on for. `synced`: whether this node has
/// the others' flows, if it asks them for any: see [`Ha::set_synced`].
///
/// # Errors
///
/// The kernel's, about sockets or threads.
pub fn spawn(
    config: &ha::Ha,
    serving: watch::Receiver<Serving>,
    synced: Option<watch::Receiver<bool>>,
    known: &BTreeMap<String, KnownGroup>,
) -> anyhow::Result<Ha> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let wake = Arc::new(EventFd::from_flags(flags)?);
    let (commands, incoming) = mpsc::channel();
    let begin = |name: &String| (name.clone(), Role::Initialize);
    let (role, roles) = watch::channel(Arc::new(config.groups.keys().map(begin).collect()));
    let orders = Orders {
        commands,
        wake: wake.clone(),
    };
    let mut thread = None;
    let mut tracking = JoinSet::new();
    if !config.groups.is_empty() {
        let keeper = Keeper::new(config, Log::start(), incoming, wake, role, known);
        let mut keeper = keeper.context("high availability")?;
        if let Some(synced) = &synced {
            // Before it runs: it may take over at once.
            keeper.set_synced(*synced.borrow());
        }
        let builder = thread::Builder::new().name("weir-ha".to_owned());
        thread = Some(builder.spawn(|| keeper.run())?);
        track::spawn(&mut tracking, config, serving, &orders);
    }
    let ha = Ha(Arc::new(Inner {
        groups: config.groups.keys().cloned().collect(),
        orders,
        roles,
        thread: Mutex::new(thread),
        _tracking: tracking,
    }));
    if let Some(synced) = synced {
        ha.follow(synced);
    }
    Ok(ha)
}

impl Ha {
    /// The role of each group, and every change of one.
    pub fn roles(&self) -> watch::Receiver<Arc<BTreeMap<String, Role>>> {
        self.0.roles.clone()
    }

    /// Says whether this node could serve connections that others have opened; at first it is
    /// taken to. While it could not, it takes nothing from a node that is active, and nothing
    /// at its start; where nobody is active any more, it takes over all the same.
    pub fn set_synced(&self, synced: bool) {
        self.0.orders.give(Command::Synced(synced));
    }

    /// [`Ha::set_synced`] from now on, as long as somebody tells. Within a tokio runtime.
    fn follow(&self, mut synced: watch::Receiver<bool>) {
        let orders = self.0.orders.clone();
        tokio::spawn(async move {
            loop {
                let now = *synced.borrow_and_update();
                if !orders.give(Command::Synced(now)) || synced.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// All groups by name, as they are now.
    pub async fn view(&self) -> BTreeMap<String, GroupView> {
        let (reply, answer) = oneshot::channel();
        self.0.orders.give(Command::View(reply));
        answer.await.unwrap_or_default()
    }

    /// Has another node take a group, and those that fail over with it.
    ///
    /// # Errors
    ///
    /// See [`NotHandedOver`].
    pub async fn hand_over(&self, group: &str) -> Result<(), NotHandedOver> {
        if !self.0.groups.contains(group) {
            return Err(NotHandedOver::NotFound(group.to_owned()));
        }
        let (reply, answer) = oneshot::channel();
        self.0
            .orders
            .give(Command::HandOver(group.to_owned(), reply));
        match answer.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(NotHandedOver::NotActive(group.to_owned())),
            Err(_) => Err(NotHandedOver::Ending),
        }
    }

    /// Returns when the thread has ended without having been told to, which is a bug.
    pub async fn failed(&self) {
        let mut roles = self.0.roles.clone();
        if self.0.groups.is_empty() {
            return std::future::pending().await;
        }
        while roles.changed().await.is_ok() {}
    }

    /// Ends without giving anything up, for another agent of this node to go on at once: how it
    /// stands with the groups.
    pub async fn leave(&self) -> BTreeMap<String, KnownGroup> {
        let (reply, answer) = oneshot::channel();
        self.0.orders.give(Command::Leave(reply));
        let known = answer.await.unwrap_or_default();
        self.join().await;
        known
    }

    /// Hands everything over, and returns when others have taken it or nobody does.
    pub async fn end(&self) {
        self.0.orders.give(Command::End);
        self.join().await;
    }

    async fn join(&self) {
        let thread = self
            .0
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // It has said why, if it panicked.
            let _ = tokio::task::spawn_blocking(|| thread.join()).await;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.orders.give(Command::End);
    }
}
