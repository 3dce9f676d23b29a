//! Groups that fail over together: the state machine, and doing what it says.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

use super::{
    handover::KnownGroup,
    keeper::Tools,
    link::Link,
    view::{GroupView, TransitionView, seconds},
    vrrp::{Interval, Machine, Output, Role, Settings},
};
use crate::config::ha::Group;

/// Changes of role that are remembered.
const REMEMBERED: usize = 20;

/// Groups that fail over together.
pub(super) struct Set {
    pub(super) links: Vec<Link>,
    machine: Machine,
    interval: Interval,
    lease: Duration,
    lease_due: Instant,
    since: SystemTime,
    transitions: VecDeque<TransitionView>,
    changes: u64,
    /// The links on which somebody has taken over since this ended as the active one.
    heirs: Option<BTreeSet<usize>>,
}

impl Set {
    /// Groups with the same `sync`; at least one.
    pub(super) fn new(groups: &[(&String, &Group)], now: Instant) -> Self {
        let mut groups = groups.to_vec();
        // The same order on all nodes, whatever they call the groups.
        groups.sort_by_key(|(_, group)| (group.vrid, !group.is_ipv4()));
        let links = groups.iter().map(|(name, group)| Link::new(name, group));
        let group = groups[0].1;
        // The configuration has been checked.
        let interval = Interval::new(group.advert_interval);
        let interval = interval.unwrap_or(Interval::SECOND);
        let settings = Settings {
            links: groups.len(),
            priority: group.priority,
            interval,
            preempt: group.preempt.then_some(group.preempt_delay),
            announce_interval: group.announce_interval,
        };
        Self {
            links: links.collect(),
            machine: Machine::new(settings, now),
            interval,
            lease: lease(interval),
            lease_due: now,
            since: SystemTime::now(),
            transitions: VecDeque::new(),
            changes: 0,
            heirs: None,
        }
    }

    /// Goes on where the agent before this one has ended.
    pub(super) fn learn(&mut self, known: &BTreeMap<String, KnownGroup>) {
        let now = Instant::now();
        let mut active = true;
        for link in &mut self.links {
            let group = known.get(&link.name);
            active &= group.is_some_and(|group| group.role == Role::Active);
            if let Some(group) = group {
                link.rules.learn(&group.track);
            }
        }
        self.weigh(now);
        if active {
            self.machine.go_on();
        }
    }

    /// For the agent that takes over.
    pub(super) fn known(&self) -> BTreeMap<String, KnownGroup> {
        let known = |link: &Link| {
            let group = KnownGroup {
                role: self.role(),
                track: link.rules.known(),
            };
            (link.name.clone(), group)
        };
        self.links.iter().map(known).collect()
    }

    pub(super) fn role(&self) -> Role {
        self.machine.role()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let machine = self.machine.deadline();
        match self.role() {
            Role::Active => machine.map(|at| at.min(self.lease_due)),
            _ => machine,
        }
    }

    /// Follows the interfaces, and what is tracked.
    pub(super) fn follow(&mut self, tools: &mut Tools<'_>, moving: &BTreeSet<IpAddr>) {
        let now = Instant::now();
        for (index, link) in self.links.iter_mut().enumerate() {
            link.follow(tools, moving);
            self.machine.set_local(now, index, link.local);
            for (rule, passes, reason) in link.rules.look(tools.interfaces) {
                tell_of_rule(tools, &link.name, &rule, passes, &reason);
            }
        }
        self.weigh(now);
        self.act(tools);
    }

    /// Something that is tracked has been looked at.
    pub(super) fn verdict(
        &mut self,
        tools: &mut Tools<'_>,
        group: &str,
        rule: &str,
        passes: bool,
        reason: &str,
    ) {
        for link in self.links.iter_mut().filter(|link| link.name == group) {
            if link.rules.set(rule, passes, reason) {
                tell_of_rule(tools, group, rule, passes, reason);
            }
        }
        self.weigh(Instant::now());
        self.act(tools);
    }

    fn weigh(&mut self, now: Instant) {
        let penalty = self.links.iter().map(|link| link.rules.penalty()).sum();
        self.machine.lower_by(now, penalty);
    }

    /// Takes what has come. Before [`Set::poll`], which would else miss it.
    pub(super) fn receive(&mut self, tools: &mut Tools<'_>) {
        for index in 0..self.links.len() {
            let now = Instant::now();
            while let Some((source, advert)) = self.links[index].receive(tools, now) {
                if advert.priority > 0
                    && let Some(heirs) = &mut self.heirs
                {
                    heirs.insert(index);
                }
                self.machine.receive(now, index, source, &advert);
                self.act(tools);
            }
        }
    }

    /// Does what is due.
    pub(super) fn poll(&mut self, tools: &mut Tools<'_>) {
        let now = Instant::now();
        self.machine.poll(now);
        self.act(tools);
        if self.role() == Role::Active && self.lease_due <= now {
            self.hold(tools);
        }
    }

    /// Whether it had something to hand over.
    pub(super) fn hand_over(&mut self, tools: &mut Tools<'_>) -> bool {
        let had = self.machine.hand_over(Instant::now());
        self.act(tools);
        had
    }

    pub(super) fn set_synced(&mut self, synced: bool) {
        self.machine.set_synced(synced);
    }

    /// Gives everything up; for how long to wait for somebody to take it.
    pub(super) fn end(&mut self, tools: &mut Tools<'_>) -> Duration {
        let active = self.role() == Role::Active;
        self.machine.end();
        self.act(tools);
        if !active {
            return Duration::ZERO;
        }
        self.heirs = Some(BTreeSet::new());
        // The longest skew time.
        self.interval.duration() + Duration::from_millis(100)
    }

    /// Whether nobody is waited for.
    pub(super) fn inherited(&self) -> bool {
        let heirs = self.heirs.as_ref();
        heirs.is_none_or(|heirs| heirs.len() == self.links.len())
    }

    /// Does what the machine says.
    fn act(&mut self, tools: &mut Tools<'_>) {
        for output in self.machine.outputs() {
            match output {
                Output::Advertise { link, priority } => {
                    self.links[link].advertise(tools, priority, self.interval);
                }
                Output::Hold => self.hold(tools),
                Output::Announce => {
                    self.links.iter_mut().for_each(|link| link.announce(tools));
                }
                Output::Release => {
                    self.links.iter_mut().for_each(|link| link.release(tools));
                }
                Output::Changed { from, to, reason } => {
                    let now = SystemTime::now();
                    self.since = now;
                    self.changes += 1;
                    self.transitions.truncate(REMEMBERED - 1);
                    self.transitions.push_front(TransitionView {
                        at: seconds(now),
                        from,
                        to,
                        reason: reason.to_string(),
                    });
                    for link in &self.links {
                        let message = format!("{to}, was {from}: {reason}");
                        tools.log.info(&link.name, message);
                    }
                    tools.changed = true;
                }
            }
        }
    }

    fn hold(&mut self, tools: &mut Tools<'_>) {
        let seconds = self.lease.as_secs() as u32;
        self.lease_due = Instant::now() + self.lease / 3;
        self.links
            .iter_mut()
            .for_each(|link| link.hold(tools, seconds));
    }

    pub(super) fn view(&self) -> BTreeMap<String, GroupView> {
        let now = Instant::now();
        let view = |link: &Link| {
            let mut counters = link.counters;
            counters.transitions = self.changes;
            let view = GroupView {
                role: self.role(),
                since: seconds(self.since),
                priority: self.machine.priority(),
                configured_priority: link.group.priority,
                addresses: link.group.addresses.clone(),
                interface: link.group.interface.clone(),
                vrid: link.group.vrid,
                source: link.local,
                problem: link.problem.clone(),
                sync: link.group.sync.clone(),
                peers: link.peers(now),
                track: link.rules.view(),
                transitions: self.transitions.iter().cloned().collect(),
                counters,
            };
            (link.name.clone(), view)
        };
        self.links.iter().map(view).collect()
    }
}

/// For how long the kernel keeps addresses that nobody prolongs: gone before others take over,
/// as far as its whole seconds allow.
fn lease(interval: Interval) -> Duration {
    let silence = interval.duration() * 3;
    Duration::from_secs(silence.as_secs().max(1))
}

fn tell_of_rule(tools: &Tools<'_>, group: &str, rule: &str, passes: bool, reason: &str) {
    match passes {
        true => tools.log.info(group, format!("{rule} passes: {reason}")),
        false => tools.log.warn(group, format!("{rule} fails: {reason}")),
    }
}
