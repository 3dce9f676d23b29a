//! A request from its first byte to its answer's last: what is counted of it, whatever its end.

use std::{
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use hyper::http::request::Parts;

use super::{body::Source, prepare::Ready};
use crate::proxy::{
    access_log::{Entry, Seen},
    backend::{Backend, Held},
    client::Link,
    headers::trace::Span,
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
    /// What is to be logged of it.
    log: Option<Box<Logged>>,
}

/// What the access log, and whoever follows traces, want to know.
struct Logged {
    seen: Seen,
    span: Option<Span>,
    began: SystemTime,
    start: Instant,
    tries: u32,
    /// Who failed last, where Weir answers.
    failed: Option<Rc<Upstream>>,
    answered: Option<Duration>,
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
            log: None,
        }
    }

    /// What it asks, if it is to be logged, or may be traced.
    pub(crate) fn asks(&mut self, parts: &Parts) {
        let plan = &self.service.plan;
        if plan.log.is_some() || plan.traces.is_some() {
            let peer = self.link.peer.ip();
            let seen = Seen::new(
                &parts.method,
                &parts.uri,
                parts.version,
                &parts.headers,
                peer,
            );
            self.log = Some(Box::new(Logged {
                seen,
                span: None,
                began: SystemTime::now(),
                start: Instant::now(),
                tries: 0,
                failed: None,
                answered: None,
            }));
        }
    }

    /// What it was found to be.
    pub(super) fn prepared(&mut self, ready: &Ready<'_>) {
        if let Some(log) = &mut self.log {
            log.seen.client = ready.client;
            log.seen.route.clone_from(&ready.route.name);
            let id = ready.id.as_ref().and_then(|id| id.to_str().ok());
            log.seen.id = id.map(str::to_owned);
            log.span = ready.span;
            log.seen.trace = ready.span.map(|span| format!("{:032x}", span.trace));
        }
    }

    /// The backend that it is at.
    pub(crate) fn backend(&self) -> Option<&Backend> {
        self.at.as_ref().map(|at| &*at.upstream.backend)
    }

    /// It goes to a backend, after others perhaps.
    pub(crate) fn goes_to(&mut self, pool: &Rc<LocalPool>, upstream: &Rc<Upstream>) {
        self.leave();
        if let Some(log) = &mut self.log {
            log.tries += 1;
        }
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
            if let Some(log) = &mut self.log {
                log.answered = Some(at.since.elapsed());
            }
        }
    }

    /// Weir answers.
    pub(crate) fn answered_here(&mut self, status: u16) {
        if let (Some(log), Some(at)) = (&mut self.log, &self.at) {
            log.failed = Some(at.upstream.clone());
        }
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

    /// Writes its line, and sends its span.
    fn record(&mut self) {
        let Some(logged) = self.log.take() else {
            return;
        };
        let at = self.at.as_ref();
        let upstream = at.map(|at| &at.upstream).or(logged.failed.as_ref());
        let entry = Entry {
            seen: &logged.seen,
            service: &self.service.plan.name,
            began: logged.began,
            status: self.status,
            complete: self.complete,
            backend: upstream.map(|at| (&*at.backend.pool, &*at.backend.name)),
            retries: logged.tries.saturating_sub(1),
            bytes_in: self.source.as_ref().map_or(0, |source| source.received()),
            bytes_out: self.bytes_out,
            tls: self.link.tls(),
            queued: at.map(|at| at.since.saturating_duration_since(logged.start)),
            answered: logged.answered,
            total: logged.start.elapsed(),
        };
        if let Some(log) = &self.service.plan.log {
            log.record(&entry);
        }
        if let (Some(traces), Some(span)) = (&self.service.plan.traces, &logged.span) {
            traces.record(span, &entry);
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
        self.record();
        self.leave();
        let stats = self.service.stats();
        stats.requests_in_flight.sub(1);
        stats.bytes_out.add(self.bytes_out);
        if self.status != 0 {
            stats.answered(self.status);
        }
        if let Some(source) = &self.source {
            stats.bytes_in.add(source.received());
        }
        self.link.in_flight.set(self.link.in_flight.get() - 1);
    }
}
