//! What is known of a client's connection.

use std::{
    cell::{Cell, OnceCell, Ref, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use http::HeaderValue;

use crate::proxy::{
    headers::forwarded::text,
    io::Traffic,
    listener::Listener,
    local::Worker,
    proxy_protocol::{Addresses, Details},
    snapshot::Pool,
    stats::ServiceStats,
    tls::ClientIdentity,
    tunnel::Tunnel,
    upstream::Caller,
};

/// A client's connection.
pub(crate) struct Link {
    /// The worker that it is served by.
    pub(crate) worker: Rc<Worker>,
    /// Where it came in.
    pub(crate) listener: Rc<Listener>,
    /// Who is at the other end.
    pub(crate) peer: SocketAddr,
    peer_text: OnceCell<HeaderValue>,
    /// Its bytes.
    pub(crate) traffic: Rc<Traffic>,
    /// Requests that are not at their end.
    pub(crate) in_flight: Cell<u32>,
    /// Requests.
    pub(crate) requests: Cell<u32>,
    /// HTTP/1: what the connection is to become.
    pub(crate) tunnel: RefCell<Option<Tunnel>>,
    tls: Cell<Option<(&'static str, &'static str)>>,
    identity: RefCell<Option<ClientIdentity>>,
    caller: OnceCell<Rc<Caller>>,
    /// Of the service that accepted it.
    stats: Arc<ServiceStats>,
}

impl Link {
    /// A new connection.
    pub(super) fn new(worker: Rc<Worker>, listener: Rc<Listener>, peer: SocketAddr) -> Rc<Link> {
        let stats = listener.service().plan.stats.clone();
        let own = stats.of(worker.number);
        own.connections.add(1);
        own.open_connections.add(1);
        worker.links.set(worker.links.get() + 1);
        Rc::new(Link {
            traffic: Rc::new(Traffic::new(&worker.timers)),
            worker,
            listener,
            peer,
            peer_text: OnceCell::new(),
            in_flight: Cell::new(0),
            requests: Cell::new(0),
            tunnel: RefCell::default(),
            tls: Cell::new(None),
            identity: RefCell::default(),
            caller: OnceCell::new(),
            stats,
        })
    }
}

impl Link {
    /// Whether it is to end where nothing is under way: with its listener, but not before its
    /// first request, as its client cannot know that.
    pub(super) fn is_to_end(&self) -> bool {
        match self.requests.get() {
            0 => self.listener.is_over(&self.worker),
            _ => self.listener.is_closing(),
        }
    }

    /// Who is at the other end, as backends are told.
    pub(crate) fn peer_text(&self) -> &HeaderValue {
        self.peer_text.get_or_init(|| text(self.peer.ip()))
    }

    /// Whether it is encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.get().is_some()
    }

    /// The version of TLS and the cipher that it is encrypted with.
    pub(crate) fn tls(&self) -> Option<(&'static str, &'static str)> {
        self.tls.get()
    }

    /// It is encrypted with these.
    pub(super) fn set_tls(&self, version: &'static str, cipher: &'static str) {
        self.tls.set(Some((version, cipher)));
    }

    /// Who the client is, for a pool whose backends are told; with the connections that it has to
    /// them.
    pub(crate) fn caller(&self, pool: &Pool) -> Option<Rc<Caller>> {
        pool.http.proxy_protocol?;
        let caller = self
            .caller
            .get_or_init(|| self.introduced(Details::default()));
        Some(caller.clone())
    }

    /// What else backends are to be told of the client.
    pub(super) fn introduce(&self, details: Details) {
        // It has not asked for anything yet.
        let _ = self.caller.set(self.introduced(details));
    }

    fn introduced(&self, details: Details) -> Rc<Caller> {
        let addresses = Addresses {
            source: self.peer,
            destination: self.listener.address(),
        };
        Caller::new(addresses, details)
    }

    /// What the client's certificate says.
    pub(super) fn set_identity(&self, identity: ClientIdentity) {
        *self.identity.borrow_mut() = Some(identity);
    }

    /// See [`Link::set_identity`].
    pub(crate) fn identity(&self) -> Ref<'_, Option<ClientIdentity>> {
        self.identity.borrow()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let worker = &self.worker;
        self.stats.of(worker.number).open_connections.sub(1);
        worker.links.set(worker.links.get() - 1);
    }
}
