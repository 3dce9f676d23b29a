//! What happens on a client's connection, and when: what its deadlines are about.

use std::{cell::Cell, io, rc::Rc, task::Poll};

use super::Frames;
use crate::proxy::timers::Timers;

/// What happens on a client's connection.
pub(crate) struct Traffic {
    timers: Rc<Timers>,
    read: Cell<u32>,
    written: Cell<u32>,
    blocked: Cell<bool>,
}

impl Traffic {
    /// None yet.
    pub(crate) fn new(timers: &Rc<Timers>) -> Self {
        Self {
            timers: timers.clone(),
            read: Cell::new(timers.now()),
            written: Cell::new(timers.now()),
            blocked: Cell::new(false),
        }
    }

    /// The tick of the last byte either way.
    pub(crate) fn last(&self) -> u32 {
        self.read.get().max(self.written.get())
    }

    /// The tick of the last byte to the client.
    pub(crate) fn last_write(&self) -> u32 {
        self.written.get()
    }

    /// Bytes came from the client.
    pub(crate) fn touch(&self) {
        self.read.set(self.timers.now());
    }

    /// HTTP/2: they did, and are these.
    pub(super) fn look(&self, bytes: &[u8], frames: &mut Frames) {
        self.touch();
        frames.receive(bytes, self.timers.now());
    }

    /// HTTP/2: what a connection that begins now is weighed with.
    pub(crate) fn frames(&self) -> Frames {
        Frames::new(self.timers.now())
    }

    /// Whether bytes wait until the client takes them.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Bytes were written, or not.
    pub(crate) fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.blocked.set(result.is_pending());
        if result.is_ready() {
            self.written.set(self.timers.now());
        }
        result
    }

    /// What was kept back was written, or not: TLS takes more than it can send, and keeps it.
    pub(crate) fn flushed(&self, result: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        self.blocked.set(result.is_pending());
        result
    }
}
