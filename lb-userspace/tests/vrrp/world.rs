//! Nodes that run the real state machine, and links between them that delay, lose and part.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use lb_userspace::ha::vrrp::{Advert, Interval, Machine, Output, Role, Settings};

/// Between advertisements.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// A node, as configured.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) priority: u8,
    pub(crate) preempt: Option<Duration>,
    /// The last byte of its address on each link.
    pub(crate) addresses: Vec<u8>,
}

/// What links do to messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// The longest that a message takes.
    pub(crate) delay: Duration,
    /// Loses messages, but never more than two in a row between two nodes.
    pub(crate) lossy: bool,
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// Nodes before this one no longer hear those from it on, on this link (all: `None`).
    Part(Option<usize>, usize),
    /// Everybody hears everybody.
    Heal,
    /// A node is gone, without a word.
    Kill(usize),
    /// It is back, like new.
    Start(usize),
    /// It does not run for a while.
    Pause(usize),
    /// It runs on; what has come meanwhile waits for it.
    Resume(usize),
    /// It cannot use a link.
    Down(usize, usize),
    /// It can.
    Up(usize, usize),
    /// Tracking wants its priority lower by this.
    Lower(usize, u32),
    /// Its operator wants another to take over.
    HandOver(usize),
    /// Its operator ends it.
    End(usize),
}

struct Member {
    node: Node,
    machine: Option<Machine>,
    paused: bool,
    holds: bool,
    waiting: Vec<(usize, usize, Advert)>,
    up: Vec<bool>,
}

/// All of it.
pub(crate) struct World {
    pub(crate) now: Instant,
    members: Vec<Member>,
    weather: Weather,
    random: fastrand::Rng,
    /// From time and number to link, sender, receiver and message.
    flying: BTreeMap<(Instant, u64), (usize, usize, usize, Advert)>,
    sent: u64,
    lost: BTreeMap<(usize, usize, usize), u32>,
    parted: BTreeMap<usize, usize>,
    links: usize,
    /// Every change of who holds, and when.
    pub(crate) history: Vec<(Instant, Vec<usize>)>,
    /// Announcements so far, by node.
    pub(crate) announced: Vec<u32>,
}

impl World {
    pub(crate) fn new(nodes: &[Node], weather: Weather, seed: u64) -> Self {
        let now = Instant::now();
        let links = nodes[0].addresses.len();
        let member = |node: &Node| Member {
            node: node.clone(),
            machine: None,
            paused: false,
            holds: false,
            waiting: Vec::new(),
            up: vec![true; links],
        };
        let mut world = Self {
            now,
            members: nodes.iter().map(member).collect(),
            weather,
            random: fastrand::Rng::with_seed(seed),
            flying: BTreeMap::new(),
            sent: 0,
            lost: BTreeMap::new(),
            parted: BTreeMap::new(),
            links,
            history: vec![(now, Vec::new())],
            announced: vec![0; nodes.len()],
        };
        (0..nodes.len()).for_each(|node| world.happen(Event::Start(node)));
        world
    }

    pub(crate) fn happen(&mut self, event: Event) {
        match event {
            Event::Part(link, at) => {
                let links = link.map_or(0..self.links, |link| link..link + 1);
                self.parted.extend(links.map(|link| (link, at)));
            }
            Event::Heal => self.parted.clear(),
            Event::Kill(node) => {
                self.members[node].machine = None;
                self.members[node].holds = false;
                self.members[node].paused = false;
            }
            Event::Start(node) => self.start(node),
            Event::Pause(node) => self.members[node].paused = true,
            Event::Resume(node) => self.resume(node),
            Event::Down(node, link) => self.set_link(node, link, false),
            Event::Up(node, link) => self.set_link(node, link, true),
            Event::Lower(node, by) => self.tell(node, |machine, now| machine.lower_by(now, by)),
            Event::HandOver(node) => self.tell(node, |machine, now| {
                machine.hand_over(now);
            }),
            Event::End(node) => {
                self.tell(node, |machine, _| machine.end());
                self.happen(Event::Kill(node));
            }
        }
        self.note();
    }

    fn start(&mut self, node: usize) {
        let member = &mut self.members[node];
        if member.machine.is_some() {
            return;
        }
        let settings = Settings {
            links: self.links,
            priority: member.node.priority,
            interval: Interval::new(INTERVAL).expect("a valid interval"),
            preempt: member.node.preempt,
            announce_interval: Duration::from_secs(60),
        };
        member.waiting.clear();
        member.machine = Some(Machine::new(settings, self.now));
        for link in 0..self.links {
            let up = self.members[node].up[link];
            self.set_link(node, link, up);
        }
    }

    fn set_link(&mut self, node: usize, link: usize, up: bool) {
        self.members[node].up[link] = up;
        let local = up.then(|| self.address(node, link));
        self.tell(node, |machine, now| machine.set_local(now, link, local));
    }

    fn resume(&mut self, node: usize) {
        self.members[node].paused = false;
        for (link, from, advert) in std::mem::take(&mut self.members[node].waiting) {
            let source = self.address(from, link);
            self.tell(node, |machine, now| {
                machine.receive(now, link, source, &advert)
            });
        }
        self.tell(node, Machine::poll);
    }

    pub(crate) fn address(&self, node: usize, link: usize) -> IpAddr {
        Ipv4Addr::new(10, 0, link as u8, self.members[node].node.addresses[link]).into()
    }

    /// Does something to a node's machine, and then what it wants done.
    fn tell(&mut self, node: usize, what: impl FnOnce(&mut Machine, Instant)) {
        let now = self.now;
        let member = &mut self.members[node];
        if member.paused {
            return;
        }
        let Some(machine) = &mut member.machine else {
            return;
        };
        what(machine, now);
        for output in machine.outputs() {
            match output {
                Output::Advertise { link, priority } => self.send(node, link, priority),
                Output::Hold => self.members[node].holds = true,
                Output::Release => self.members[node].holds = false,
                Output::Announce => {
                    assert!(self.members[node].holds, "only the holder announces");
                    self.announced[node] += 1;
                }
                Output::Changed { from, to, .. } => assert_ne!(from, to),
            }
        }
        let member = &self.members[node];
        let active = (member.machine.as_ref()).is_some_and(|m| m.role() == Role::Active);
        assert_eq!(member.holds, active, "the active one holds");
    }

    fn send(&mut self, from: usize, link: usize, priority: u8) {
        let advert = Advert {
            vrid: 1,
            priority,
            interval: Interval::new(INTERVAL).expect("a valid interval"),
            addresses: vec![Ipv4Addr::new(192, 0, 2, 1).into()],
        };
        for to in (0..self.members.len()).filter(|to| *to != from) {
            let lost = self.lost.entry((link, from, to)).or_default();
            if self.weather.lossy && *lost < 2 && self.random.u8(..) < 80 {
                *lost += 1;
                continue;
            }
            *lost = 0;
            let delay = self.weather.delay.mul_f64(self.random.f64());
            self.sent += 1;
            let at = (self.now + delay, self.sent);
            self.flying.insert(at, (link, from, to, advert.clone()));
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let running = self.members.iter().filter(|member| !member.paused);
            let timers = running.filter_map(|member| member.machine.as_ref()?.deadline());
            let message = self.flying.keys().next().map(|(at, _)| *at);
            let Some(next) = timers.chain(message).min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if message.is_some_and(|at| at <= self.now) {
                self.deliver();
            }
            (0..self.members.len()).for_each(|node| self.tell(node, Machine::poll));
            self.note();
        }
        self.now = end;
    }

    fn deliver(&mut self) {
        let Some((_, (link, from, to, advert))) = self.flying.pop_first() else {
            return;
        };
        if !self.hears(link, from, to) || self.members[to].machine.is_none() {
            return;
        }
        if self.members[to].paused {
            return self.members[to].waiting.push((link, from, advert));
        }
        let source = self.address(from, link);
        self.tell(to, |machine, now| {
            machine.receive(now, link, source, &advert)
        });
    }

    fn hears(&self, link: usize, one: usize, other: usize) -> bool {
        let side = |node| self.parted.get(&link).is_some_and(|at| node >= *at);
        let up = |node: usize| self.members[node].up[link];
        side(one) == side(other) && up(one) && up(other)
    }

    fn note(&mut self) {
        let holders = self.holders();
        if self.history.last().is_none_or(|(_, last)| *last != holders) {
            self.history.push((self.now, holders));
        }
    }

    /// Those who hold. The kernel takes the addresses from one that does not run.
    pub(crate) fn holders(&self) -> Vec<usize> {
        let holds = |node: &usize| self.members[*node].holds && !self.members[*node].paused;
        (0..self.members.len()).filter(holds).collect()
    }

    /// The longest time since `from` in which not exactly one held.
    pub(crate) fn longest_fault(&self, from: Instant) -> Duration {
        let ends = self.history.iter().skip(1).map(|(at, _)| *at);
        let spans = self.history.iter().zip(ends.chain([self.now]));
        let mut longest = Duration::ZERO;
        let mut begun = None;
        for ((begin, holders), end) in spans.filter(|(_, end)| *end > from) {
            match holders.len() {
                1 => begun = None,
                _ => {
                    let begun = *begun.get_or_insert((*begin).max(from));
                    longest = longest.max(end - begun);
                }
            }
        }
        longest
    }
}
