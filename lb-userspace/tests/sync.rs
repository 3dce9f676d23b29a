//! Nodes that tell each other of flows, over real sockets.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    thread::sleep,
    time::{Duration, Instant},
};

use lb_userspace::ha::sync::{
    Node, Options, Tables, listen,
    record::{Record, Vip},
    spawn,
};

/// Tables in memory: clients' ports, and those that are new.
#[derive(Default)]
struct Ports {
    all: Mutex<BTreeSet<u16>>,
    new: Mutex<Vec<u16>>,
}

impl Ports {
    fn open(&self, port: u16) {
        self.all.lock().expect("no panic").insert(port);
        self.new.lock().expect("no panic").push(port);
    }

    fn count(&self) -> usize {
        self.all.lock().expect("no panic").len()
    }
}

fn record(port: u16) -> Record {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
    Record::Flow {
        vip: Vip {
            address: here,
            protocol: 6,
        },
        client: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        backend: here,
        idle: 0,
        state: 0,
    }
}

impl Tables for Ports {
    fn news(&self) -> (Vec<Record>, bool) {
        let new = std::mem::take(&mut *self.new.lock().expect("no panic"));
        (new.into_iter().map(record).collect(), false)
    }

    fn snapshot(&self) -> io::Result<Vec<Record>> {
        Ok(self
            .all
            .lock()
            .expect("no panic")
            .iter()
            .copied()
            .map(record)
            .collect())
    }

    fn take(&self, records: &[Record]) {
        let ports = records.iter().map(|record| match record {
            Record::Flow { client, .. } => client.port(),
            other => panic!("nobody sent {other:?}"),
        });
        self.all.lock().expect("no panic").extend(ports);
    }
}

/// A free port of the loopback interface.
fn free() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.local_addr().expect("it has an address")
}

fn start(address: SocketAddr, peer: SocketAddr, key: u8, tables: &Arc<Ports>) -> Node {
    start_among(address, &[peer], key, tables)
}

fn start_among(address: SocketAddr, peers: &[SocketAddr], key: u8, tables: &Arc<Ports>) -> Node {
    let options = Options {
        peers: peers.to_vec(),
        key: [key; 32],
    };
    let socket = listen(address).expect("a socket");
    spawn(&options, socket, tables.clone(), false).expect("a node")
}

fn eventually(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(30), "not so: {what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn flows_survive_their_node() {
    let (here, there) = (free(), free());
    let (old, new) = (Arc::new(Ports::default()), Arc::new(Ports::default()));
    (0..30_000).for_each(|port| old.open(port));
    let first = start(here, there, 1, &old);
    eventually("a node that hears nobody is on its own", || {
        *first.synced.borrow()
    });
    let second = start(there, here, 1, &new);
    eventually("the newcomer has everything", || new.count() == 30_000);
    eventually("it knows", || *second.synced.borrow());
    old.open(40_000);
    eventually("it is told of what is new", || new.count() == 30_001);
    drop(first);
    eventually("it misses the other", || {
        !second.peers.borrow()[&here].connected
    });
    assert!(*second.synced.borrow(), "who is left has everything");
    // One that comes back gets it all from the other.
    let empty = Arc::new(Ports::default());
    let first = start(here, there, 1, &empty);
    eventually("it has everything back", || empty.count() == 30_001);
    eventually("it knows", || *first.synced.borrow());
}

/// Who answers first may not have what another one has.
#[test]
fn a_newcomer_waits_for_all_that_are_there() {
    let addresses = [free(), free(), free()];
    let others = |own: usize| {
        let others = (0..3).filter(|other| *other != own);
        others.map(|other| addresses[other]).collect::<Vec<_>>()
    };
    let tables: [Arc<Ports>; 3] = Default::default();
    let node = |own: usize| start_among(addresses[own], &others(own), 1, &tables[own]);
    let _first = node(0);
    tables[1].open(1);
    let newcomer = node(2);
    eventually("it has what the first has", || {
        let peers = newcomer.peers.borrow();
        peers.get(&addresses[0]).is_some_and(|peer| peer.synced)
    });
    // The other one is slow to answer.
    let _second = node(1);
    eventually("it knows", || *newcomer.synced.borrow());
    assert_eq!(tables[2].count(), 1, "it has what the second has");
    let peers = newcomer.peers.borrow();
    assert!(peers.values().all(|peer| peer.synced), "{peers:?}");
}

#[test]
fn who_has_another_key_is_told_nothing() {
    let (here, there) = (free(), free());
    let (good, bad) = (Arc::new(Ports::default()), Arc::new(Ports::default()));
    (0..10).for_each(|port| good.open(port));
    let first = start(here, there, 1, &good);
    let second = start(there, here, 2, &bad);
    eventually("both try", || {
        second
            .peers
            .borrow()
            .get(&here)
            .is_some_and(|peer| peer.sent > 5)
    });
    assert_eq!(first.peers.borrow()[&there].received, 0);
    assert_eq!(bad.count(), 0);
}
