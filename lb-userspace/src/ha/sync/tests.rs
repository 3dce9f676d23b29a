//! Two nodes and a network that loses, repeats and reorders.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    record::{Record, Vip},
    seal::Boot,
    session::{Event, Session},
};

const STEP: Duration = Duration::from_millis(50);

fn flow(number: u16) -> Record {
    let address = |host: u8, port| SocketAddr::from(([10, 0, 0, host], port));
    Record::Flow {
        vip: Vip {
            address: address(1, 80),
            protocol: 6,
        },
        client: address(2, number),
        backend: address(3, 8080),
        idle: 0,
        state: 0,
    }
}

fn number(record: &Record) -> u16 {
    match record {
        Record::Flow { client, .. } => client.port(),
        other => panic!("nobody sent {other:?}"),
    }
}

/// A node: its session, the flows that it has, and what happened to it.
struct Node {
    session: Session,
    flows: BTreeSet<u16>,
    events: Vec<Event>,
    inbox: Vec<Vec<u8>>,
}

impl Node {
    fn new(boot: u8, flows: impl IntoIterator<Item = u16>) -> Self {
        Self {
            session: Session::new([9; 32], [boot; 16] as Boot),
            flows: flows.into_iter().collect(),
            events: Vec::new(),
            inbox: Vec::new(),
        }
    }

    /// Time passes and what has come is read; what is sent.
    fn step(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        for mut datagram in self.inbox.drain(..) {
            self.session.receive(now, &mut datagram, &mut events);
        }
        self.session.tick(now, &mut events);
        for event in events {
            match &event {
                Event::Records(records) => self.flows.extend(records.iter().map(number)),
                Event::SnapshotWanted => {
                    let records: Vec<Record> = self.flows.iter().copied().map(flow).collect();
                    self.session.serve(now, &records);
                }
                _ => {}
            }
            self.events.push(event);
        }
        self.session.flush(now);
        self.session.outgoing()
    }

    fn open(&mut self, number: u16) {
        self.flows.insert(number);
        self.session.push(&flow(number));
    }

    fn count(&self, event: &Event) -> usize {
        self.events.iter().filter(|other| *other == event).count()
    }
}

/// Both take a step, and everything arrives.
fn exchange(now: &mut Instant, a: &mut Node, b: &mut Node) -> Vec<Vec<u8>> {
    *now += STEP;
    let from_a = a.step(*now);
    b.inbox.extend(from_a.clone());
    a.inbox.extend(b.step(*now));
    from_a
}

#[test]
fn a_newcomer_gets_everything_and_then_what_is_new() {
    let mut now = Instant::now();
    let mut old = Node::new(1, 0..20_000);
    let mut new = Node::new(2, []);
    for _ in 0..60 {
        exchange(&mut now, &mut old, &mut new);
    }
    assert!(new.session.progress(now).synced);
    assert_eq!(new.flows.len(), 20_000);
    old.open(30_000);
    exchange(&mut now, &mut old, &mut new);
    exchange(&mut now, &mut old, &mut new);
    assert!(new.flows.contains(&30_000));
    assert_eq!(old.session.progress(now).lag, Duration::ZERO);
    assert_eq!(new.session.progress(now).lost, 0);
}

#[test]
fn an_empty_node_is_synced_with_another() {
    let mut now = Instant::now();
    let (mut a, mut b) = (Node::new(1, []), Node::new(2, []));
    for _ in 0..20 {
        exchange(&mut now, &mut a, &mut b);
    }
    for node in [&a, &b] {
        assert!(node.session.progress(now).synced);
        assert_eq!(node.count(&Event::Found), 1);
        assert_eq!(node.count(&Event::Synced), 1);
    }
}

#[test]
fn what_is_told_is_counted() {
    let mut now = Instant::now();
    let (mut a, mut b) = (Node::new(1, 0..100), Node::new(2, []));
    for _ in 0..20 {
        exchange(&mut now, &mut a, &mut b);
    }
    a.open(200);
    exchange(&mut now, &mut a, &mut b);
    exchange(&mut now, &mut a, &mut b);
    let (sent, received) = (a.session.progress(now), b.session.progress(now));
    assert_eq!((sent.records_sent, received.records_received), (101, 101));
    assert_eq!((sent.refused, received.refused), (0, 0));
}

#[test]
fn a_node_with_another_key_is_refused_and_said_so_once() {
    let mut now = Instant::now();
    let (mut a, mut b) = (Node::new(1, []), Node::new(2, []));
    b.session = Session::new([8; 32], [2; 16]);
    for _ in 0..100 {
        exchange(&mut now, &mut a, &mut b);
    }
    for node in [&a, &b] {
        let progress = node.session.progress(now);
        assert!(!progress.connected && progress.refused > 1, "{progress:?}");
        assert_eq!(progress.received, 0);
        assert_eq!(node.events, [Event::Refused]);
    }
}

#[test]
fn silence_is_noticed_and_its_end_is_too() {
    let mut now = Instant::now();
    let (mut a, mut b) = (Node::new(1, [1]), Node::new(2, [2]));
    for _ in 0..20 {
        exchange(&mut now, &mut a, &mut b);
    }
    for _ in 0..100 {
        now += STEP;
        a.step(now);
        b.step(now);
    }
    assert_eq!((a.count(&Event::Lost), b.count(&Event::Lost)), (1, 1));
    a.open(3);
    for _ in 0..40 {
        exchange(&mut now, &mut a, &mut b);
    }
    assert_eq!(b.count(&Event::Found), 2);
    assert!(b.session.progress(now).synced);
    assert_eq!(b.flows, BTreeSet::from([1, 2, 3]));
}

#[test]
fn what_overflows_is_pulled() {
    let mut now = Instant::now();
    let (mut a, mut b) = (Node::new(1, []), Node::new(2, []));
    for _ in 0..20 {
        exchange(&mut now, &mut a, &mut b);
    }
    (0..60_000).for_each(|number| a.open(number));
    assert!(a.session.progress(now).overflowed > 0);
    for _ in 0..300 {
        exchange(&mut now, &mut a, &mut b);
    }
    assert_eq!(b.flows.len(), 60_000);
}

#[test]
fn recordings_of_an_earlier_start_are_refused() {
    let mut now = Instant::now();
    let (mut a, mut b) = (Node::new(1, []), Node::new(2, []));
    let mut recorded = Vec::new();
    for number in 0..20 {
        a.open(number);
        recorded.extend(exchange(&mut now, &mut a, &mut b));
    }
    // Another node in a's place, then the recording of the first, to b as it is.
    let mut successor = Node::new(3, []);
    for _ in 0..20 {
        exchange(&mut now, &mut successor, &mut b);
    }
    b.flows.clear();
    b.inbox.extend(recorded.clone());
    exchange(&mut now, &mut successor, &mut b);
    assert_eq!(b.flows, BTreeSet::new());
    assert!(b.session.progress(now).connected);
    // And to one that has started anew since.
    let mut restarted = Node::new(4, []);
    restarted.inbox.extend(recorded);
    restarted.step(now + STEP);
    assert_eq!(restarted.events, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn everything_arrives_at_last(
        fates in prop::collection::vec((0u8..10, any::<u8>()), 400),
        restart in prop::option::of(20usize..100),
    ) {
        let mut now = Instant::now();
        let mut a = Node::new(1, 0..3_000);
        let mut b = Node::new(2, 10_000..10_100);
        let mut fates = fates.into_iter();
        for round in 0..700 {
            now += STEP;
            if restart == Some(round) {
                b = Node::new(5, 10_000..10_100);
            }
            if round < 100 {
                a.open(20_000 + round as u16);
            }
            let (to_b, to_a) = (a.step(now), b.step(now));
            for (datagrams, inbox) in [(to_b, &mut b.inbox), (to_a, &mut a.inbox)] {
                for datagram in datagrams {
                    match fates.next() {
                        Some((0 | 1, _)) => {}
                        Some((2, _)) => inbox.extend([datagram.clone(), datagram]),
                        Some((3, place)) => inbox.insert(usize::from(place) % (inbox.len() + 1), datagram),
                        _ => inbox.push(datagram),
                    }
                }
            }
        }
        prop_assert!(a.session.progress(now).synced && b.session.progress(now).synced);
        prop_assert!(a.flows == b.flows, "{:?}", a.flows.symmetric_difference(&b.flows));
        prop_assert_eq!(a.flows.len(), 3_200);
    }
}
