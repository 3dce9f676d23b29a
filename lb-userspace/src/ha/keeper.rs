//! The thread that keeps the addresses: it alone has the timers, the sockets and the kernel's
//! ear, and waits for nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::AsFd as _,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::eventfd::EventFd,
};
use tokio::sync::{oneshot, watch};

use super::{
    announce::Announcer, handover::KnownGroup, interfaces::Interfaces, kernel::Kernel, log::Log,
    realtime, set::Set, view::GroupView, vrrp::Role,
};
use crate::config::ha::{Group, Ha};

/// How often XDP programs are looked for, of which the kernel does not tell.
const LOOK: Duration = Duration::from_secs(1);
/// The longest that an agent which ends waits for another to take over.
const LONGEST_END: Duration = Duration::from_secs(5);

/// What the thread may be told.
pub(super) enum Command {
    /// Give a group away; whether it was this node's.
    HandOver(String, oneshot::Sender<bool>),
    /// Something that is tracked has been looked at.
    Verdict {
        group: String,
        rule: String,
        passes: bool,
        reason: String,
    },
    /// Whether this node could serve connections that others have opened.
    Synced(bool),
    /// Show everything.
    View(oneshot::Sender<BTreeMap<String, GroupView>>),
    /// End, and leave everything as it is for another agent to go on with.
    Leave(oneshot::Sender<BTreeMap<String, KnownGroup>>),
    /// Give everything up, and end.
    End,
}

/// Roles of groups by name.
pub(super) type Roles = Arc<BTreeMap<String, Role>>;

/// What a group needs to do its work.
pub(super) struct Tools<'a> {
    pub(super) kernel: &'a mut Kernel,
    pub(super) interfaces: &'a Interfaces,
    pub(super) announcer: &'a Announcer,
    pub(super) log: &'a Log,
    /// Whether any role has changed.
    pub(super) changed: bool,
}

/// The thread's own.
pub(super) struct Keeper {
    sets: Vec<Set>,
    /// Addresses that move between nodes.
    moving: BTreeSet<IpAddr>,
    kernel: Kernel,
    interfaces: Interfaces,
    announcer: Announcer,
    log: Log,
    commands: mpsc::Receiver<Command>,
    wake: Arc<EventFd>,
    roles: watch::Sender<Roles>,
    look_at: Instant,
    /// Another agent goes on.
    left: bool,
    /// Ending: when at the latest.
    end_at: Option<Instant>,
}

impl Keeper {
    /// In the namespace of the calling thread.
    pub(super) fn new(
        config: &Ha,
        log: Log,
        commands: mpsc::Receiver<Command>,
        wake: Arc<EventFd>,
        roles: watch::Sender<Roles>,
        known: &BTreeMap<String, KnownGroup>,
    ) -> std::io::Result<Self> {
        let now = Instant::now();
        let mut together: BTreeMap<(bool, &str), Vec<(&String, &Group)>> = BTreeMap::new();
        for (name, group) in &config.groups {
            let key = match &group.sync {
                Some(sync) => (true, sync.as_str()),
                None => (false, name.as_str()),
            };
            together.entry(key).or_default().push((name, group));
        }
        let addresses = config.groups.values().flat_map(|group| &group.addresses);
        let mut kernel = Kernel::connect()?;
        let mut sets: Vec<_> = together.values().map(|set| Set::new(set, now)).collect();
        sets.iter_mut().for_each(|set| set.learn(known));
        Ok(Self {
            sets,
            moving: addresses.map(|address| address.address).collect(),
            interfaces: kernel.interfaces()?,
            kernel,
            announcer: Announcer::open()?,
            log,
            commands,
            wake,
            roles,
            look_at: now,
            left: false,
            end_at: None,
        })
    }

    /// See [`super::Ha::set_synced`].
    pub(super) fn set_synced(&mut self, synced: bool) {
        self.each(|set, _| set.set_synced(synced));
    }

    /// Runs until it is told to end.
    pub(super) fn run(mut self) {
        if let Err(error) = realtime::prefer_this_thread() {
            self.log.warn(
                "",
                format!(
                    "no real-time priority ({error}): on a busy machine advertisements may be \
                     late; CAP_SYS_NICE gives it"
                ),
            );
        }
        self.follow();
        loop {
            // What has come first: it may put off what is due.
            self.each(Set::receive);
            self.each(Set::poll);
            self.obey();
            if self.is_over() {
                return;
            }
            self.wait();
            if Instant::now() >= self.look_at {
                self.look();
            }
        }
    }

    fn each(&mut self, mut what: impl FnMut(&mut Set, &mut Tools<'_>)) {
        let mut tools = Tools {
            kernel: &mut self.kernel,
            interfaces: &self.interfaces,
            announcer: &self.announcer,
            log: &self.log,
            changed: false,
        };
        self.sets.iter_mut().for_each(|set| what(set, &mut tools));
        if tools.changed {
            let roles = self.sets.iter().flat_map(|set| {
                let names = set.links.iter().map(|link| link.name.clone());
                names.map(|name| (name, set.role()))
            });
            self.roles.send_replace(Arc::new(roles.collect()));
        }
    }

    fn follow(&mut self) {
        let moving = std::mem::take(&mut self.moving);
        self.each(|set, tools| set.follow(tools, &moving));
        self.moving = moving;
    }

    /// Waits until something has come or is due, and takes in the kernel's events.
    fn wait(&mut self) {
        let deadlines = self.sets.iter().filter_map(Set::deadline);
        let next = deadlines.chain([self.look_at]).chain(self.end_at).min();
        let now = Instant::now();
        let timeout = next.map_or(LOOK, |next| next.saturating_duration_since(now));
        let links = self.sets.iter().flat_map(|set| &set.links);
        let wires = links.filter_map(|link| Some(link.wire()?.as_fd()));
        let all = [self.wake.as_fd(), self.kernel.as_fd()];
        let all = all.into_iter().chain(wires);
        let mut ready: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let polled = ppoll(&mut ready, Some(timeout.into()), None);
        let is_ready = |at: usize| ready[at].any().unwrap_or(true);
        let (woken, told) = (is_ready(0), is_ready(1));
        if polled.is_ok() && woken {
            // Only the commands say what there is to do.
            let _ = self.wake.read();
        }
        if polled.is_ok() && told {
            match self.kernel.follow(&mut self.interfaces) {
                Ok(true) => self.follow(),
                _ => self.look_anew(),
            }
        }
    }

    /// Once a second: XDP programs.
    fn look(&mut self) {
        self.look_at = Instant::now() + LOOK;
        let links = self.sets.iter().flat_map(|set| &set.links);
        let names: BTreeSet<String> = links
            .flat_map(|link| link.rules.xdp())
            .map(str::to_owned)
            .collect();
        for name in &names {
            // One that is not there is not in the table either.
            let _ = self.kernel.look_at(name, &mut self.interfaces);
        }
        if !names.is_empty() {
            self.follow();
        }
    }

    fn look_anew(&mut self) {
        match self.kernel.interfaces() {
            Ok(interfaces) => self.interfaces = interfaces,
            Err(error) => self
                .log
                .warn("", format!("reading the interfaces: {error}")),
        }
        self.follow();
    }

    fn obey(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::HandOver(group, reply) => {
                    let mut had = false;
                    self.each(|set, tools| {
                        if set.links.iter().any(|link| link.name == group) {
                            had = set.hand_over(tools);
                        }
                    });
                    let _ = reply.send(had);
                }
                Command::Verdict {
                    group,
                    rule,
                    passes,
                    reason,
                } => self.each(|set, tools| set.verdict(tools, &group, &rule, passes, &reason)),
                Command::Synced(synced) => self.set_synced(synced),
                Command::View(reply) => {
                    // Who asked may have left.
                    let _ = reply.send(self.sets.iter().flat_map(Set::view).collect());
                }
                Command::Leave(reply) => {
                    self.left = true;
                    // Who asked may have left.
                    let _ = reply.send(self.sets.iter().flat_map(Set::known).collect());
                    return;
                }
                Command::End => {
                    let mut longest = Duration::ZERO;
                    self.each(|set, tools| longest = longest.max(set.end(tools)));
                    self.end_at = Some(Instant::now() + longest.min(LONGEST_END));
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        let late = |end: Instant| Instant::now() >= end;
        let ended = self
            .end_at
            .is_some_and(|end| late(end) || self.sets.iter().all(Set::inherited));
        self.left || ended
    }
}
