//! The state machine of RFC 9568, section 6, for one or several virtual routers that fail over
//! together. Without IO, and with the time told: [`Output`]s are to be done in their order.
//!
//! Where it does more than the RFC:
//!
//! - Several links share one role. It is taken when no link hears anybody active any more, and
//!   given up when any link hears somebody better, or is down.
//! - Without preemption, a node still takes over from one whose priority has *fallen* below its
//!   own: else tracking would have no effect.
//! - A node that did not run for so long that others must have taken over does not come back
//!   with its old role, but waits like a newcomer.

use std::{
    fmt::{self, Display},
    net::IpAddr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    Advert, Interval, Reason,
    repeat::Repeat,
    rival::{Link, Takes, down_interval},
};

/// The priority of an owner, which nothing lowers.
const OWNER: u8 = 255;

/// What a node is for its virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It cannot speak, or has ended.
    Initialize,
    /// It waits for whoever is active to go away.
    Backup,
    /// It holds the addresses.
    Active,
}

impl Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initialize => "initialize",
            Self::Backup => "backup",
            Self::Active => "active",
        })
    }
}

/// What is configured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of links, one for each virtual router, in an order that all nodes share.
    pub links: usize,
    /// 1 to 254, or 255: owns the addresses.
    pub priority: u8,
    /// Between advertisements.
    pub interval: Interval,
    /// Whether to take over from those of lower priority, and after how long.
    pub preempt: Option<Duration>,
    /// Between announcements, after the first ones.
    pub announce_interval: Duration,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send an advertisement.
    Advertise {
        /// On which link.
        link: usize,
        /// With this priority.
        priority: u8,
    },
    /// Add the addresses.
    Hold,
    /// Tell the neighbours where the addresses are.
    Announce,
    /// Remove the addresses.
    Release,
    /// Say that the role has changed.
    Changed {
        /// From this.
        from: Role,
        /// To this.
        to: Role,
        /// For this reason.
        reason: Reason,
    },
}

/// One or several virtual routers that fail over together.
#[derive(Clone, Debug)]
pub struct Machine {
    settings: Settings,
    role: Role,
    /// As tracking has left it.
    priority: u8,
    /// Whether this node could serve connections that others have opened.
    synced: bool,
    /// It has handed over, and so does not take back.
    yielded: bool,
    /// It is to be active as soon as it can speak.
    goes_on: bool,
    ended: bool,
    /// Backup: it has looked too late, and listens once more.
    late: bool,
    links: Vec<Link>,
    /// Active: when it has last advertised.
    advertised_at: Instant,
    announcing: Repeat,
    outputs: Vec<Output>,
}

impl Machine {
    /// One that cannot speak yet, and holds nothing.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            role: Role::Initialize,
            priority: settings.priority,
            synced: true,
            yielded: false,
            goes_on: false,
            ended: false,
            late: false,
            links: vec![Link::new(settings.interval, now); settings.links],
            advertised_at: now,
            announcing: Repeat::new(now),
            // What an earlier run may have left.
            outputs: vec![Output::Release],
            settings,
        }
    }

    /// Goes on for an agent before this one, which was active until now and leaves the addresses
    /// where they are. Before anything else.
    pub fn go_on(&mut self) {
        self.goes_on = true;
        self.outputs.clear();
    }

    /// What is to be done since this was last called.
    pub fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// What the node is now.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The priority, as tracking has left it.
    pub fn priority(&self) -> u8 {
        self.priority
    }

    /// When to call [`Machine::poll`] again, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        match self.role {
            Role::Initialize => None,
            Role::Backup => self.links.iter().map(|link| link.gone_at).max(),
            Role::Active => Some(self.next_advert().min(self.announcing.next())),
        }
    }

    fn next_advert(&self) -> Instant {
        self.advertised_at + self.settings.interval.duration()
    }

    /// A link has this address to send from, or none.
    pub fn set_local(&mut self, now: Instant, link: usize, local: Option<IpAddr>) {
        self.links[link].local = local;
        if self.ended {
            return;
        }
        let speaks = self.links.iter().all(|link| link.local.is_some());
        match (self.role, speaks) {
            (Role::Initialize, true) => {
                self.change(Role::Backup, Reason::Ready);
                self.wait(now);
                if std::mem::take(&mut self.goes_on) {
                    self.take(now, Reason::GoesOn);
                } else if self.priority == OWNER && self.synced {
                    self.take(now, Reason::Owns);
                }
            }
            (Role::Backup, false) => self.change(Role::Initialize, Reason::Mute),
            (Role::Active, false) => self.resign(Role::Initialize, Reason::Mute, None),
            _ => {}
        }
    }

    /// Tracking wants the priority lower by this.
    pub fn lower_by(&mut self, now: Instant, penalty: u32) {
        let full = self.settings.priority;
        let lowered = u32::from(full).saturating_sub(penalty).max(1) as u8;
        let priority = if full == OWNER { full } else { lowered };
        if priority != self.priority {
            self.priority = priority;
            if self.role == Role::Active {
                self.advertise(now);
            }
        }
    }

    /// Whether this node could serve connections that others have opened. While not, it takes
    /// over only where nobody is active.
    pub fn set_synced(&mut self, synced: bool) {
        self.synced = synced;
    }

    /// Gives the role to another, if it has it. Whether it had.
    pub fn hand_over(&mut self, now: Instant) -> bool {
        let active = self.role == Role::Active;
        if active {
            self.resign(Role::Backup, Reason::HandedOver, None);
            self.wait(now);
            self.yielded = true;
        }
        active
    }

    /// Gives everything up, for good.
    pub fn end(&mut self) {
        self.ended = true;
        match self.role {
            Role::Active => self.resign(Role::Initialize, Reason::Ending, None),
            Role::Backup => self.change(Role::Initialize, Reason::Ending),
            Role::Initialize => {}
        }
    }

    /// An advertisement has come from another node.
    pub fn receive(&mut self, now: Instant, link: usize, source: IpAddr, advert: &Advert) {
        // Those that came while the node did not run are younger than its own last one.
        self.wake(now);
        match (self.role, advert.priority) {
            (Role::Initialize, _) => {}
            (Role::Backup, 0) => {
                for link in &mut self.links {
                    link.doubt(now, self.priority, Reason::Resigned(source));
                }
            }
            (Role::Backup, _) => {
                self.late = false;
                let takes = self.takes();
                self.links[link].hear(now, source, advert, self.priority, takes);
            }
            (Role::Active, 0) => self.assert(now, link),
            (Role::Active, _) => self.compete(now, link, source, advert),
        }
    }

    fn takes(&self) -> Takes {
        match self.settings.preempt {
            _ if !self.synced => Takes::Nothing,
            _ if self.yielded => Takes::Weakened,
            _ if self.priority == OWNER => Takes::Lower(Duration::ZERO),
            Some(delay) => Takes::Lower(delay),
            None => Takes::Weakened,
        }
    }

    /// Two are active: one goes.
    fn compete(&mut self, now: Instant, index: usize, source: IpAddr, advert: &Advert) {
        let link = &mut self.links[index];
        let tied = advert.priority == self.priority;
        if tied {
            link.tie(now);
        }
        let higher = link.local.is_some_and(|local| source > local);
        if advert.priority > self.priority || (tied && higher && self.decides(now, index)) {
            let reason = Reason::Outranked(source, advert.priority);
            self.resign(Role::Backup, reason, Some(index));
            self.wait(now);
            let takes = self.takes();
            self.links[index].hear(now, source, advert, self.priority, takes);
        } else if advert.priority < self.priority || !higher {
            self.assert(now, index);
            self.announcing.again(now);
        }
    }

    /// Whether a tie on this link is one between the nodes: of those of several links, which
    /// addresses may decide differently, the first does; the others where it is cut.
    fn decides(&self, now: Instant, index: usize) -> bool {
        let patience = 2 * self.settings.interval.duration();
        let tied_for = |link: &Link| link.tied_for(now);
        index == 0
            || (tied_for(&self.links[index]).is_some_and(|time| time >= patience)
                && !self.links[..index]
                    .iter()
                    .any(|link| tied_for(link).is_some()))
    }

    /// Tells one that is active as well that it is outranked; not faster than twice an interval,
    /// whatever it sends.
    fn assert(&mut self, now: Instant, index: usize) {
        let rest = self.settings.interval.duration() / 2;
        let link = &mut self.links[index];
        if link.asserted_at.is_none_or(|before| now >= before + rest) {
            link.asserted_at = Some(now);
            self.outputs.push(Output::Advertise {
                link: index,
                priority: self.priority,
            });
        }
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Instant) {
        self.wake(now);
        match self.role {
            Role::Initialize => {}
            Role::Backup => self.inherit(now),
            Role::Active => {
                if self.next_advert() <= now {
                    self.advertise(now);
                }
                if self.announcing.due(now, self.settings.announce_interval) {
                    self.outputs.push(Output::Announce);
                }
            }
        }
    }

    /// Takes over, if no link hears anybody any more.
    fn inherit(&mut self, now: Instant) {
        let last = self.links.iter().max_by_key(|link| link.gone_at);
        let Some(last) = last.filter(|last| last.gone_at <= now) else {
            return;
        };
        let interval = self.settings.interval.duration();
        if now > last.gone_at + interval && !self.late {
            // It did not run, so what it has not heard proves nothing.
            self.late = true;
            for link in &mut self.links {
                link.gone_at = now + interval;
            }
            return;
        }
        let silence = Reason::Silence(now - last.heard_at);
        let reason = last.cause.unwrap_or(silence);
        self.take(now, reason);
    }

    /// Gives up what others must have taken while this node did not run.
    fn wake(&mut self, now: Instant) {
        let slept = now.saturating_duration_since(self.advertised_at);
        if self.role == Role::Active && slept >= 3 * self.settings.interval.duration() {
            self.outputs.push(Output::Release);
            self.change(Role::Backup, Reason::Overslept(slept));
            self.wait(now);
        }
    }

    fn take(&mut self, now: Instant, reason: Reason) {
        self.yielded = false;
        self.late = false;
        self.links.iter_mut().for_each(Link::take);
        self.announcing = Repeat::new(now);
        self.change(Role::Active, reason);
        self.advertise(now);
        self.outputs.push(Output::Hold);
        self.poll(now);
    }

    /// Gives up the addresses and tells all links. The one on which somebody better is active
    /// hears a last word instead, so that the other knows that its neighbours were misled, and
    /// announces itself again.
    fn resign(&mut self, to: Role, reason: Reason, outranked_on: Option<usize>) {
        self.outputs.push(Output::Release);
        for link in 0..self.links.len() {
            let priority = match outranked_on == Some(link) {
                true => self.priority,
                false => 0,
            };
            if self.links[link].local.is_some() {
                self.outputs.push(Output::Advertise { link, priority });
            }
        }
        self.change(to, reason);
    }

    fn wait(&mut self, now: Instant) {
        for link in &mut self.links {
            link.wait(now, self.settings.interval, self.priority);
        }
    }

    fn advertise(&mut self, now: Instant) {
        self.advertised_at = now;
        let priority = self.priority;
        let all = (0..self.links.len()).map(|link| Output::Advertise { link, priority });
        self.outputs.extend(all);
    }

    fn change(&mut self, to: Role, reason: Reason) {
        let from = std::mem::replace(&mut self.role, to);
        self.outputs.push(Output::Changed { from, to, reason });
    }

    /// For how long whoever is active must be silent before this node takes over.
    pub fn down_interval(&self) -> Duration {
        down_interval(self.settings.interval, self.priority)
    }
}
