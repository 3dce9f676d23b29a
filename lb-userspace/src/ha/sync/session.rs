//! What one node has with another: no clock and no socket of its own.
//!
//! Greetings go to and fro until each has seen its own boot come back; then both know that
//! they talk to each other now. Whoever has a new session, or has lost something, pulls a
//! snapshot, chunk after chunk, at its own pace; new records come beside it as they are made.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    message::{Greeting, Message, Pieces},
    pull::{Pull, Serving},
    record::{self, Record},
    seal::{Boot, Header, Kind, Seal, Seen, SharedKey, header},
};

/// Between two greetings while there is no session, and between two signs of life.
const GREET: Duration = Duration::from_millis(500);
/// A peer that has not been heard for so long is gone.
const GONE: Duration = Duration::from_secs(3);
/// Between two snapshots that are pulled because something was lost.
const REPAIR: Duration = Duration::from_secs(5);
/// Records that wait to be sent at most, in bytes; what comes then is lost, and the peer pulls.
const WAITING: usize = 1 << 20;
/// Boots of a peer that has started anew since, which are not taken again.
const RETIRED: usize = 64;
/// Datagrams whose arrival is waited for, for the lag.
const UNDER_WAY: usize = 4096;

/// What the driver has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Put these into the tables.
    Records(Vec<Record>),
    /// Give a snapshot of the tables to [`Session::serve`]. Comes again until that is done.
    SnapshotWanted,
    /// The peer is there.
    Found,
    /// The peer's flows as of a moment ago are all here.
    Synced,
    /// The peer has not been heard for a while.
    Lost,
    /// The greetings that come from the peer's address are sealed with another key.
    Refused,
}

/// What a session has come to; also the body of the admin API's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The peer is there.
    pub connected: bool,
    /// A whole snapshot of the peer's has arrived since it is there.
    pub synced: bool,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that came.
    pub received: u64,
    /// Datagrams of the peer's that did not come.
    pub lost: u64,
    /// Datagrams from the peer's address that were not made by it for this session, or came
    /// before: forged or recorded, or of a node with another key.
    #[serde(default)]
    pub refused: u64,
    /// Records sent, those of snapshots with them: flows, translations, affinities and slots.
    #[serde(default)]
    pub records_sent: u64,
    /// Records that came.
    #[serde(default)]
    pub records_received: u64,
    /// Records that were not sent because too many waited; the peer pulls them.
    pub overflowed: u64,
    /// How long the oldest datagram that the peer has not confirmed is under way.
    #[serde(rename = "lag_ms", with = "milliseconds")]
    pub lag: Duration,
}

/// A duration as a number.
mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(lag: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(lag.as_millis().try_into().unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// One node's half of a session.
pub struct Session {
    shared: SharedKey,
    boot: Boot,
    greetings: Seal,
    greeted: u64,
    last_greeting: Option<Instant>,
    /// Of the last greeting that was not proven to be fresh.
    heard: Option<Boot>,
    peer: Option<Peer>,
    retired: VecDeque<Boot>,
    pull: Pull,
    serving: Serving,
    waiting: Pieces,
    out: Vec<Vec<u8>>,
    progress: Progress,
    /// It was said that nothing is understood.
    complained: bool,
}

/// A datagram is not the peer's, or not of this session.
struct Refused;

/// The other node, since its present start. Kept while it is not heard: the counters of one
/// pair of boots never begin again.
struct Peer {
    boot: Boot,
    outgoing: Seal,
    incoming: Seal,
    counter: u64,
    seen: Seen,
    last_heard: Instant,
    last_report: Instant,
    reported: u64,
    /// Counters of datagrams that it has not confirmed, and when they were sent.
    under_way: VecDeque<(u64, Instant)>,
    /// Of [`Seen::skipped`], what a pull has made good, and when that began.
    repaired: u64,
    last_repair: Instant,
}

impl Session {
    /// A session with a node that has the same key and has not been heard yet.
    pub fn new(shared: SharedKey, boot: Boot) -> Self {
        Self {
            greetings: Seal::greetings(&shared, boot),
            shared,
            boot,
            greeted: 0,
            last_greeting: None,
            heard: None,
            peer: None,
            retired: VecDeque::new(),
            pull: Pull::default(),
            serving: Serving::default(),
            waiting: Pieces::default(),
            out: Vec::new(),
            progress: Progress::default(),
            complained: false,
        }
    }

    /// How far it has come.
    pub fn progress(&self, now: Instant) -> Progress {
        let peer = self.peer.as_ref();
        let oldest = peer.and_then(|peer| peer.under_way.front());
        Progress {
            lost: peer.map_or(0, |peer| peer.seen.lost()),
            lag: oldest.map_or(Duration::ZERO, |(_, sent)| now.duration_since(*sent)),
            ..self.progress
        }
    }

    /// Datagrams to send to the peer now.
    pub fn outgoing(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.out)
    }

    /// Has a record sent with the next [`Session::flush`].
    pub fn push(&mut self, record: &Record) {
        if !self.progress.connected {
            // The peer will pull everything.
            return;
        }
        if self.waiting.bytes() > WAITING {
            self.lose();
            return;
        }
        self.waiting.push(record);
        self.progress.records_sent += 1;
    }

    /// Something that should have been pushed was not: the peer is to pull.
    pub fn lose(&mut self) {
        self.progress.overflowed += 1;
        if let Some(peer) = &mut self.peer {
            // A counter that never comes is what it knows a loss by.
            peer.counter += 1;
        }
    }

    /// Sends what was pushed.
    pub fn flush(&mut self, now: Instant) {
        for piece in self.waiting.take() {
            self.send(now, Message::Live, &piece);
        }
    }

    /// Sends the snapshot that [`Event::SnapshotWanted`] asked for.
    pub fn serve<'a>(&mut self, now: Instant, records: impl IntoIterator<Item = &'a Record>) {
        let mut pieces = Pieces::default();
        for record in records {
            pieces.push(record);
            self.progress.records_sent += 1;
        }
        self.serving.begin(now, pieces.take());
        self.send_chunks(now, 0);
    }

    /// Pulls a snapshot although nothing is known to be missing, for the flows' ages.
    pub fn refresh(&mut self) {
        if self.progress.synced && self.pull.is_done() {
            self.pull.begin();
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, events: &mut Vec<Event>) {
        let silent_for = |peer: &Peer| now.duration_since(peer.last_heard);
        if self.progress.connected
            && self
                .peer
                .as_ref()
                .is_none_or(|peer| silent_for(peer) > GONE)
        {
            self.progress.connected = false;
            self.progress.synced = false;
            self.waiting.take();
            if let Some(peer) = &mut self.peer {
                peer.under_way.clear();
            }
            events.push(Event::Lost);
        }
        self.serving.forget(now);
        if !self.progress.connected {
            self.greet_again(now);
            return;
        }
        self.repair(now);
        if let Some((snapshot, chunk)) = self.pull.due(now) {
            self.send(now, Message::Pull { snapshot, chunk }, &[]);
        }
        self.report(now);
    }

    /// Has a snapshot pulled where something was lost.
    fn repair(&mut self, now: Instant) {
        let Some(peer) = &mut self.peer else { return };
        let skipped = peer.seen.skipped();
        if skipped > peer.repaired && now.duration_since(peer.last_repair) >= REPAIR {
            peer.repaired = skipped;
            peer.last_repair = now;
            self.pull.begin();
        }
    }

    fn report(&mut self, now: Instant) {
        let Some(peer) = &mut self.peer else { return };
        let next = peer.seen.next();
        if next != peer.reported || now.duration_since(peer.last_report) >= GREET {
            peer.reported = next;
            peer.last_report = now;
            self.send(now, Message::Report { next }, &[]);
        }
    }

    /// Greets, unless it has just done so.
    fn greet_again(&mut self, now: Instant) {
        let rests = |last| now.duration_since(last) < GREET;
        if !self.last_greeting.is_some_and(rests) {
            self.greet(now);
        }
    }

    fn greet(&mut self, now: Instant) {
        self.last_greeting = Some(now);
        let echo = self.heard.or(self.peer.as_ref().map(|peer| peer.boot));
        let answer = !self.progress.connected || self.heard.is_some();
        if let Ok(payload) = postcard::to_extend(&Greeting { echo, answer }, Vec::new()) {
            self.out.push(self.greetings.seal(self.greeted, &payload));
            self.greeted += 1;
            self.progress.sent += 1;
        }
    }

    fn send(&mut self, now: Instant, message: Message, records: &[u8]) {
        let (Some(peer), Ok(payload)) = (&mut self.peer, message.with(records)) else {
            return;
        };
        self.out.push(peer.outgoing.seal(peer.counter, &payload));
        if peer.under_way.len() < UNDER_WAY && !matches!(message, Message::Report { .. }) {
            peer.under_way.push_back((peer.counter, now));
        }
        peer.counter += 1;
        self.progress.sent += 1;
    }

    fn send_chunks(&mut self, now: Instant, from: u32) {
        for (snapshot, chunk, chunks) in self.serving.burst(now, from) {
            let message = Message::Chunk {
                snapshot,
                chunk,
                chunks,
            };
            let records = self.serving.chunk(chunk).to_vec();
            self.send(now, message, &records);
        }
    }

    /// A datagram came from the peer's address.
    pub fn receive(&mut self, now: Instant, datagram: &mut [u8], events: &mut Vec<Event>) {
        let received = match header(datagram) {
            Some(header) if header.kind == Kind::Greeting => {
                self.greeting(now, header, datagram, events)
            }
            Some(header) => self.data(now, header, datagram, events),
            None => Err(Refused),
        };
        match received {
            Ok(()) => self.progress.received += 1,
            Err(Refused) => self.progress.refused += 1,
        }
    }

    fn greeting(
        &mut self,
        now: Instant,
        header: Header,
        datagram: &mut [u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Refused> {
        if header.boot == self.boot || self.retired.contains(&header.boot) {
            return Err(Refused);
        }
        let seal = Seal::greetings(&self.shared, header.boot);
        let Some(payload) = seal.open(header.counter, datagram) else {
            // Once, until the peer is heard.
            if !self.progress.connected && !std::mem::replace(&mut self.complained, true) {
                events.push(Event::Refused);
            }
            return Err(Refused);
        };
        let greeting = postcard::from_bytes(payload).map_err(|_| Refused)?;
        self.greeted_by(now, header.boot, greeting, events);
        Ok(())
    }

    fn data(
        &mut self,
        now: Instant,
        header: Header,
        datagram: &mut [u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Refused> {
        let peer = self.peer.as_mut().ok_or(Refused)?;
        if header.boot != peer.boot {
            // It has started anew, and the greeting that would have shown it was lost.
            self.greet_again(now);
            return Err(Refused);
        }
        let payload = peer.incoming.open(header.counter, datagram);
        let payload = payload.ok_or(Refused)?;
        if !peer.seen.first_time(header.counter) {
            return Err(Refused);
        }
        peer.last_heard = now;
        self.reconnect(events);
        if let Ok((message, records)) = Message::read(payload) {
            self.told(now, message, records, events);
        }
        Ok(())
    }

    fn greeted_by(
        &mut self,
        now: Instant,
        boot: Boot,
        greeting: Greeting,
        events: &mut Vec<Event>,
    ) {
        if greeting.echo != Some(self.boot) {
            // Not proven to be fresh: it is told our boot, so that it can be.
            self.heard = Some(boot);
            self.greet(now);
            return;
        }
        self.heard = None;
        match &mut self.peer {
            Some(peer) if peer.boot == boot => {
                peer.last_heard = now;
                self.reconnect(events);
            }
            old => {
                if let Some(old) = old.replace(Peer::new(&self.shared, self.boot, boot, now)) {
                    self.retired.push_back(old.boot);
                    if self.retired.len() > RETIRED {
                        self.retired.pop_front();
                    }
                }
                self.serving = Serving::default();
                self.connect(events);
            }
        }
        if greeting.answer {
            self.greet(now);
        }
    }

    fn connect(&mut self, events: &mut Vec<Event>) {
        self.progress.connected = true;
        self.progress.synced = false;
        self.complained = false;
        self.pull.begin();
        events.push(Event::Found);
    }

    /// The peer is heard again.
    fn reconnect(&mut self, events: &mut Vec<Event>) {
        if self.progress.connected {
            return;
        }
        if let Some(peer) = &mut self.peer {
            // What was made meanwhile was not sent; it may have heard us all the time, and is to
            // notice.
            peer.counter += 1;
        }
        self.connect(events);
    }

    fn told(&mut self, now: Instant, message: Message, records: &[u8], events: &mut Vec<Event>) {
        match message {
            Message::Live => self.take(records, events),
            Message::Pull { snapshot, chunk } => match self.serving.has(snapshot) {
                true => self.send_chunks(now, chunk),
                false => {
                    self.serving.wanted(snapshot);
                    events.push(Event::SnapshotWanted);
                }
            },
            Message::Chunk {
                snapshot,
                chunk,
                chunks,
            } => {
                if !self.pull.got(now, snapshot, chunk, chunks) {
                    return;
                }
                self.take(records, events);
                if self.pull.is_done() {
                    if !std::mem::replace(&mut self.progress.synced, true) {
                        events.push(Event::Synced);
                    }
                } else if let Some((snapshot, chunk)) = self.pull.due(now) {
                    self.send(now, Message::Pull { snapshot, chunk }, &[]);
                }
            }
            Message::Report { next } => {
                if let Some(peer) = &mut self.peer {
                    while peer
                        .under_way
                        .front()
                        .is_some_and(|&(counter, _)| counter < next)
                    {
                        peer.under_way.pop_front();
                    }
                }
            }
        }
    }

    fn take(&mut self, records: &[u8], events: &mut Vec<Event>) {
        match record::read_all(records) {
            Ok(mut records) => {
                self.progress.records_received += records.len() as u64;
                // Later changes are made by each node itself; told again and again, a slot that
                // one has settled would be tracked for the other's sake for ever.
                records.retain(|record| {
                    !self.progress.synced || !matches!(record, Record::Slot { .. })
                });
                if !records.is_empty() {
                    events.push(Event::Records(records));
                }
            }
            // Another version's: what it says of flows is no use here.
            Err(error) => tracing::warn!("a peer's records cannot be read: {error}"),
        }
    }
}

impl Peer {
    fn new(shared: &SharedKey, here: Boot, there: Boot, now: Instant) -> Self {
        Self {
            boot: there,
            outgoing: Seal::data(shared, here, there),
            incoming: Seal::data(shared, there, here),
            counter: 0,
            seen: Seen::default(),
            last_heard: now,
            last_report: now,
            reported: 0,
            under_way: VecDeque::new(),
            repaired: 0,
            last_repair: now,
        }
    }
}
