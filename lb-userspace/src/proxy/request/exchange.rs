//! A request from its first byte to its answer's last: what is counted of it, whatever its end.

use std::{rc::Rc, time::Instant};

use super::body::Source;
use crate::proxy::{
    backend::Held,
    client::Link,
    local::{LocalPool, LocalService},
    upstream::Upstream,
};

/// The request.
pub(crate) struct Exchange {
    pub(crate) link: Rc<Link>,
    pub(crate) service: Rc<LocalService>,
    pub(crate) source: Option<Rc<Source>>,
    /// The backend that it is at.
    at: Option<At>,
    status: u16,
    bytes_out: u64,
    complete: bool,
}

struct At {
    pool: Rc<LocalPool>,
    upstream: Rc<Upstream>,
    since: Instant,
    _held: Held,
}

impl Exchange {
    /// It has begun.
    pub(crate) fn begin(link: &Rc<Link>) -> Exchange {
        let service = link.listener.service();
        let stats = service.stats();
        stats.requests.add(1);
        stats.requests_in_flight.add(1);
        link.requests.set(link.requests.get() + 1);
        link.in_flight.set(link.in_flight.get() + 1);
        Exchange {
            link: link.clone(),
            service,
            source: None,
            at: None,
            status: 0,
            bytes_out: 0,
            complete: false,
        }
    }

    /// It goes to a backend, after others perhaps.
    pub(crate) fn goes_to(&mut self, pool: &Rc<LocalPool>, upstream: &Rc<Upstream>) {
        self.leave();
        pool.in_flight.set(pool.in_flight.get() + 1);
        upstream.stats().requests.add(1);
        self.at = Some(At {
            pool: pool.clone(),
            upstream: upstream.clone(),
            since: Instant::now(),
            _held: Held::request(&upstream.backend),
        });
    }

    /// The backend has answered.
    pub(crate) fn answered(&mut self, status: u16) {
        self.status = status;
        if let Some(at) = &self.at {
            at.upstream.backend.measured(at.since.elapsed());
            at.upstream.stats().answered(status);
        }
    }

    /// Weir answers.
    pub(crate) fn answered_here(&mut self, status: u16) {
        self.leave();
        self.status = status;
        self.service.stats().own_answers.add(1);
        self.complete = true;
    }

    /// Bytes of the answer's body went on.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// The answer is at its end.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// The backend broke off.
    pub(crate) fn broke(&mut self) {
        if let Some(at) = &self.at {
            at.upstream.stats().failures.add(1);
        }
    }

    /// The tunnel that it opened has closed.
    pub(crate) fn tunnelled(&mut self, up: u64, down: u64) {
        self.complete = true;
        self.bytes_out += down;
        self.service.stats().bytes_in.add(up);
        if let Some(at) = &self.at {
            at.upstream.stats().bytes_in.add(up);
        }
    }

    fn leave(&mut self) {
        if let Some(at) = self.at.take() {
            at.pool.in_flight.set(at.pool.in_flight.get() - 1);
            let stats = at.upstream.stats();
            stats.bytes_out.add(self.bytes_out);
            let received = self.source.as_ref().map_or(0, |source| source.received());
            stats.bytes_in.add(received);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.leave();
        let stats = self.service.stats();
        stats.requests_in_flight.sub(1);
        stats.bytes_out.add(self.bytes_out);
        if self.status != 0 {
            stats.answered(self.status);
        }
        if let Some(source) = &self.source {
            stats.bytes_in.add(source.received());
            if source.has_ended() {
                self.link.body_open.set(false);
            }
        }
        self.link.in_flight.set(self.link.in_flight.get() - 1);
    }
}
