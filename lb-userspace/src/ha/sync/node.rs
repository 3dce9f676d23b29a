//! A node among its peers: the socket, the clock and the tables for the sessions.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use socket2::{Domain, Socket, Type};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval},
};

use super::{
    record::Record,
    seal::{SharedKey, new_boot},
    session::{Event, Progress, Session},
};
use crate::events::{self, Kind};

/// Between two looks at what is new in the tables.
const LOOK: Duration = Duration::from_millis(5);
/// Between two steps of the sessions' timers.
const STEP: Duration = Duration::from_millis(100);
/// Between two snapshots that are pulled although nothing was lost: they say which flows still
/// speak.
const REFRESH: Duration = Duration::from_secs(10);
/// How long a node that starts waits for peers that it does not hear, before it holds them to be
/// gone.
const ALONE: Duration = Duration::from_secs(4);
/// A burst of a snapshot, and some more.
const RECEIVE_BUFFER: usize = 4 << 20;

/// This node's tables.
pub trait Tables: Send + Sync + 'static {
    /// What has been remembered since the last call, and whether something was lost of it.
    fn news(&self) -> (Vec<Record>, bool);

    /// Everything that another node could not work out by itself.
    ///
    /// # Errors
    ///
    /// The kernel's.
    fn snapshot(&self) -> io::Result<Vec<Record>>;

    /// Remembers what another node has told, unless this one knows better.
    fn take(&self, records: &[Record]);
}

/// To whom a node speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The other nodes'.
    pub peers: Vec<SocketAddr>,
    /// The key that all have.
    pub key: SharedKey,
}

/// All peers by address, as they are.
pub type PeersView = BTreeMap<SocketAddr, Progress>;

/// A running node. It ends when this is dropped.
pub struct Node {
    /// Whether it has what its peers have: true too where it is alone.
    pub synced: watch::Receiver<bool>,
    /// Its peers, every 100 ms.
    pub peers: watch::Receiver<PeersView>,
    // The thread ends when this is dropped.
    end: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Node {
    /// Ends it; nothing reads its socket any more when this returns.
    pub async fn end(self) {
        drop(self.end);
        // It has said why, if it panicked.
        let _ = tokio::task::spawn_blocking(|| self.thread.join()).await;
    }
}

/// Starts the node, in a thread of its own. `synced`: it has what its peers have.
///
/// # Errors
///
/// The kernel's, about threads or its random generator.
pub fn spawn(
    options: &Options,
    socket: std::net::UdpSocket,
    tables: Arc<dyn Tables>,
    synced: bool,
) -> anyhow::Result<Node> {
    let boot = new_boot().map_err(|_| anyhow::anyhow!("the kernel gives no random bytes"))?;
    let sessions = options.peers.iter();
    let sessions = sessions
        .map(|&peer| (peer, Session::new(options.key, boot)))
        .collect();
    let (synced, is_synced) = watch::channel(synced);
    let (view, peers) = watch::channel(PeersView::default());
    let (end, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let driver = Driver {
        tables,
        sessions,
        asked: Vec::new(),
        started: Instant::now(),
        synced,
        view,
    };
    let thread = thread::Builder::new()
        .name("weir-sync".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let result = driver.run(socket, ended).await;
                if let Err(error) = result {
                    tracing::error!("flows are not told to other nodes any more: {error:#}");
                }
            });
        })?;
    Ok(Node {
        synced: is_synced,
        peers,
        end,
        thread,
    })
}

/// The socket of a node at this address and UDP port.
///
/// # Errors
///
/// The kernel's.
pub fn listen(address: SocketAddr) -> anyhow::Result<std::net::UdpSocket> {
    let socket = bind(address);
    socket.with_context(|| format!("listening on {address} for other nodes"))
}

fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    // The kernel gives less where it may not give so much; the sessions ask again.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

struct Driver {
    tables: Arc<dyn Tables>,
    sessions: BTreeMap<SocketAddr, Session>,
    /// Peers for which a snapshot is being made.
    asked: Vec<SocketAddr>,
    started: Instant,
    synced: watch::Sender<bool>,
    view: watch::Sender<PeersView>,
}

impl Driver {
    async fn run(
        mut self,
        socket: std::net::UdpSocket,
        mut ended: oneshot::Receiver<()>,
    ) -> anyhow::Result<()> {
        let socket = UdpSocket::from_std(socket)?;
        let (made, mut snapshots) = mpsc::channel(1);
        let mut look = ticks(LOOK);
        let mut step = ticks(STEP);
        let mut refresh = ticks(REFRESH);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let mut events = Vec::new();
            tokio::select! {
                _ = &mut ended => return Ok(()),
                received = socket.recv_from(&mut buffer) => {
                    // An error is a peer's ICMP: its timers tell as well.
                    if let Ok((length, from)) = received {
                        self.receive(from, &mut buffer[..length], &mut events);
                    }
                }
                Some(snapshot) = snapshots.recv() => self.serve(snapshot),
                _ = look.tick() => self.tell_news(),
                _ = step.tick() => self.step(&mut events),
                _ = refresh.tick() => self.sessions.values_mut().for_each(Session::refresh),
            }
            for (peer, event) in events {
                self.handle(peer, event, &made);
            }
            self.send(&socket).await;
        }
    }

    fn receive(
        &mut self,
        from: SocketAddr,
        datagram: &mut [u8],
        events: &mut Vec<(SocketAddr, Event)>,
    ) {
        if let Some(session) = self.sessions.get_mut(&from) {
            let mut of_peer = Vec::new();
            session.receive(Instant::now(), datagram, &mut of_peer);
            events.extend(of_peer.into_iter().map(|event| (from, event)));
        }
    }

    fn handle(&mut self, peer: SocketAddr, event: Event, made: &mpsc::Sender<Snapshot>) {
        match event {
            Event::Records(records) => self.tables.take(&records),
            Event::SnapshotWanted => {
                if self.asked.is_empty() {
                    let (tables, made) = (self.tables.clone(), made.clone());
                    tokio::task::spawn_blocking(move || {
                        // The driver may have ended meanwhile.
                        let _ = made.blocking_send(tables.snapshot());
                    });
                }
                if !self.asked.contains(&peer) {
                    self.asked.push(peer);
                }
            }
            Event::Found => events::info(Kind::Node, peer, "another node is there"),
            Event::Synced => events::info(Kind::Node, peer, "its flows are here"),
            Event::Refused => {
                let text = "what comes from its address is sealed with another key";
                events::warn(Kind::Node, peer, text);
            }
            Event::Lost => events::warn(Kind::Node, peer, "another node is not heard any more"),
        }
    }

    fn serve(&mut self, snapshot: Snapshot) {
        let asked = std::mem::take(&mut self.asked);
        match snapshot {
            Ok(records) => {
                for peer in asked {
                    if let Some(session) = self.sessions.get_mut(&peer) {
                        session.serve(Instant::now(), &records);
                    }
                }
            }
            // They will ask again.
            Err(error) => tracing::warn!("reading the flow tables for other nodes: {error}"),
        }
    }

    fn tell_news(&mut self) {
        let (records, lost) = self.tables.news();
        let now = Instant::now();
        for session in self.sessions.values_mut() {
            records.iter().for_each(|record| session.push(record));
            if lost {
                session.lose();
            }
            session.flush(now);
        }
    }

    fn step(&mut self, events: &mut Vec<(SocketAddr, Event)>) {
        let now = Instant::now();
        let mut view = BTreeMap::new();
        for (&peer, session) in &mut self.sessions {
            let mut of_peer = Vec::new();
            session.tick(now, &mut of_peer);
            events.extend(of_peer.into_iter().map(|event| (peer, event)));
            view.insert(peer, session.progress(now));
        }
        let patient = now.duration_since(self.started) < ALONE;
        // Who has everything has it also after the others have gone.
        let patient = patient && !*self.synced.borrow();
        // One that has not answered yet may have what the others do not.
        let synced = |peer: &Progress| peer.synced || !(peer.connected || patient);
        let synced = view.values().all(synced);
        self.synced
            .send_if_modified(|was| std::mem::replace(was, synced) != synced);
        self.view.send_replace(view);
    }

    async fn send(&mut self, socket: &UdpSocket) {
        for (peer, session) in &mut self.sessions {
            for datagram in session.outgoing() {
                // What cannot be sent is lost, as on the wire.
                let _ = socket.send_to(&datagram, peer).await;
            }
        }
    }
}

type Snapshot = io::Result<Vec<Record>>;

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
