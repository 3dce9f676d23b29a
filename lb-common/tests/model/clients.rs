//! The service's clients, and what they may expect.

use std::collections::BTreeMap;

use lb_common::{
    abi::flow_state,
    full_nat::LINGER_TICKS,
    packet::tcp_flags::{ACK, FIN, RST, SYN},
    steer::Verdict,
};
use proptest::{prelude::*, sample::Index};

use crate::{
    memory,
    wire::{self, Endpoint, Sent},
    world::{IDLE_TICKS, Outcome, Server, World},
};

/// The flags of what a backend says: data, its last, or that there is no connection.
pub(crate) const ANSWERS: [u8; 3] = [ACK, ACK | FIN, RST];

/// A connection, or a flow of datagrams, as its client sees it.
#[derive(Clone, Copy)]
pub(crate) struct Connection {
    pub(crate) client: u16,
    pub(crate) backend: u32,
    /// From where it seems to the backend to come.
    pub(crate) source: Endpoint,
    spoke: u32,
    /// The client has heard from the backend.
    established: bool,
    /// Its backend died at some time: it is not promised to go on.
    pub(crate) lost: bool,
    /// One of them has sent its FIN.
    closing: bool,
}

impl World {
    /// A new connection, in the place of one that has the same numbers.
    pub(crate) fn open(&mut self, client: u16) -> Outcome {
        let place = (self.connections.iter()).position(|old| old.client == client);
        match (self.policy.udp, place) {
            // The same numbers are the same flow.
            (true, Some(place)) => self.say(place, None),
            (true, None) => self.begin(client, None),
            (false, _) => {
                self.connections.retain(|old| old.client != client);
                self.begin(client, Some(SYN))
            }
        }
    }

    /// The SYN of a connection that has not heard from its backend, again.
    pub(crate) fn repeat_syn(&mut self, which: Index) -> Outcome {
        let half_open = self.pick(which, |connection| !connection.established);
        match half_open {
            Some(place) if !self.policy.udp => {
                let connection = self.connections.remove(place);
                self.begin(connection.client, Some(SYN))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, client: u16, flags: Option<u8>) -> Outcome {
        // Only what looks like a repeated SYN may still find its backend draining; and a
        // datagram, of a flow that has been quiet for the idle timeout, and not longer.
        let port = wire::client(client).1.to_be();
        let repeated = self.tables.flows.borrow().iter().any(|(key, flow)| {
            key.source_port == port && (flags.is_none() || flow.state & flow_state::OPENING != 0)
        });
        match wire::send(&self.tables, wire::client(client), flags) {
            Sent::To(backend, source) => {
                let server = self.servers[&backend];
                prop_assert!(!server.dead, "a new flow to the dead backend {backend}");
                let old = repeated || (flags.is_none() && self.policy.full_nat);
                prop_assert!(
                    old || server.takes_flows(),
                    "a new flow to backend {backend}"
                );
                self.connections.push(Connection {
                    client,
                    backend,
                    source,
                    spoke: self.now(),
                    established: false,
                    lost: false,
                    closing: false,
                });
                self.alone_with_its_source()?;
            }
            sent => {
                prop_assert!(!self.anybody(), "a new flow was stopped: {sent:?}");
            }
        }
        Ok(())
    }

    /// A packet of a connection.
    pub(crate) fn speak(&mut self, which: Index) -> Outcome {
        match self.pick(which, |_| true) {
            Some(place) => self.say(place, self.flags(ACK)),
            None => Ok(()),
        }
    }

    /// A packet from its backend, with [`ANSWERS`] as its flags.
    pub(crate) fn hear(&mut self, which: Index, answer: usize) -> Outcome {
        let Some(place) = self.pick(which, |connection| !connection.lost) else {
            return Ok(());
        };
        let now = self.now();
        let flags = self.flags(ANSWERS[answer]);
        let connection = &mut self.connections[place];
        let heard = wire::answer(&self.tables, connection.backend, connection.source, flags);
        let client = wire::client(connection.client);
        prop_assert_eq!(heard, Ok(((wire::VIP, wire::PORT), client)));
        if self.policy.full_nat {
            connection.spoke = now;
        }
        match flags.map(|flags| flags & (FIN | RST)) {
            Some(FIN) => connection.closing = true,
            Some(RST) => {
                self.connections.remove(place);
            }
            _ => {}
        }
        Ok(())
    }

    /// Its FIN, after which what it says still has to arrive; or its RST, after which nothing.
    pub(crate) fn close(&mut self, which: Index, reset: bool) -> Outcome {
        let place = self.pick(which, |connection| !connection.closing);
        let Some(place) = place.filter(|_| !self.policy.udp) else {
            return Ok(());
        };
        let client = self.connections[place].client;
        self.connections[place].closing = true;
        self.say(place, Some(if reset { RST } else { ACK | FIN }))?;
        if reset {
            self.connections.retain(|old| old.client != client);
        }
        Ok(())
    }

    /// Everybody who lives speaks once more, and hangs up; then nobody is counted any more.
    pub(crate) fn end(&mut self) -> Outcome {
        for place in (0..self.connections.len()).rev() {
            self.say(place, self.flags(ACK))?;
        }
        for place in (0..self.connections.len()).rev() {
            self.say(place, self.flags(RST))?;
        }
        self.wait(IDLE_TICKS + 1);
        self.tidy();
        self.check()?;
        prop_assert_eq!(memory::counts(&self.tables)[0].clone(), BTreeMap::new());
        Ok(())
    }

    fn say(&mut self, place: usize, flags: Option<u8>) -> Outcome {
        let connection = self.connections[place];
        let sent = wire::send(&self.tables, wire::client(connection.client), flags);
        let now = self.now();
        match sent {
            _ if connection.lost => return self.end_lost(place, &sent),
            Sent::To(backend, source) => {
                prop_assert_eq!(backend, connection.backend);
                prop_assert_eq!(source, connection.source);
            }
            sent => prop_assert!(false, "{sent:?}, but backend {} lives", connection.backend),
        }
        let connection = &mut self.connections[place];
        connection.spoke = now;
        connection.established = true;
        Ok(())
    }

    /// The next packet to a backend that has died: never dropped in silence. A datagram goes on
    /// to another.
    fn end_lost(&mut self, place: usize, sent: &Sent) -> Outcome {
        let goes_on = self.policy.silent || self.policy.udp;
        let connection = self.connections.remove(place);
        match *sent {
            Sent::To(backend, source) => {
                prop_assert!(!self.servers[&backend].dead, "sent to the dead");
                if self.policy.udp {
                    self.connections.push(Connection {
                        backend,
                        source,
                        spoke: self.now(),
                        lost: false,
                        ..connection
                    });
                }
            }
            Sent::Not(Verdict::Answer) => {
                prop_assert!(!(goes_on && self.anybody()), "told, instead of sent on");
            }
            Sent::Not(verdict) => prop_assert!(false, "{verdict:?}: not told"),
        }
        Ok(())
    }

    /// No two flows may look the same to a backend.
    fn alone_with_its_source(&self) -> Outcome {
        let mut seen = BTreeMap::new();
        for connection in self.connections.iter().filter(|one| !one.lost) {
            let twice = seen.insert((connection.backend, connection.source), connection.client);
            prop_assert_eq!(twice, None, "the same source as {}", connection.client);
        }
        Ok(())
    }

    /// Time passes; connections idle for too long are nobody's concern, nor are those that
    /// have closed and fallen silent.
    pub(crate) fn wait(&mut self, ticks: u32) {
        self.tables.tick.set(self.now() + ticks);
        let now = self.now();
        self.connections.retain(|connection| {
            let limit = match connection.closing {
                true => LINGER_TICKS.min(IDLE_TICKS),
                false => IDLE_TICKS,
            };
            now - connection.spoke < limit
        });
    }

    fn flags(&self, tcp: u8) -> Option<u8> {
        (!self.policy.udp).then_some(tcp)
    }

    fn anybody(&self) -> bool {
        self.servers.values().any(Server::takes_flows)
    }

    pub(crate) fn pick(&self, which: Index, wanted: impl Fn(&Connection) -> bool) -> Option<usize> {
        let places: Vec<usize> = (0..self.connections.len())
            .filter(|&place| wanted(&self.connections[place]))
            .collect();
        (!places.is_empty()).then(|| *which.get(&places))
    }
}
