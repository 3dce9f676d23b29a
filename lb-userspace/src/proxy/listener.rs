//! A worker's side of a VIP and port: the task that accepts, and what its connections share.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use http::HeaderValue;
use tokio::{
    net::TcpListener,
    task::{AbortHandle, spawn_local},
    time::sleep,
};

use super::{
    client,
    local::{LocalService, Worker},
    timers::ticks,
};

/// How long nothing is accepted after the kernel could not: it is out of memory or descriptors.
const BREATHER: Duration = Duration::from_millis(100);

/// The VIP and port.
pub(crate) struct Listener {
    address: SocketAddr,
    port: HeaderValue,
    service: RefCell<Rc<LocalService>>,
    /// The tick at which what is under way is cut; none while it listens.
    over: Cell<Option<u32>>,
    accepting: RefCell<Vec<AbortHandle>>,
}

impl Listener {
    /// Begins to accept.
    ///
    /// # Errors
    ///
    /// The runtime's.
    pub(crate) fn open(
        worker: &Rc<Worker>,
        address: SocketAddr,
        sockets: Vec<std::net::TcpListener>,
        service: Rc<LocalService>,
    ) -> io::Result<Rc<Listener>> {
        let sockets = sockets.into_iter().map(TcpListener::from_std);
        let sockets: Vec<_> = sockets.collect::<io::Result<_>>()?;
        let listener = Rc::new(Listener {
            address,
            port: address.port().into(),
            service: RefCell::new(service),
            over: Cell::new(None),
            accepting: RefCell::default(),
        });
        let tasks = sockets.into_iter().map(|socket| {
            let task = spawn_local(accept(worker.clone(), listener.clone(), socket));
            task.abort_handle()
        });
        listener.accepting.borrow_mut().extend(tasks);
        Ok(listener)
    }

    /// The VIP and port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port, as backends are told.
    pub(crate) fn port(&self) -> &HeaderValue {
        &self.port
    }

    /// What is served here now.
    pub(crate) fn service(&self) -> Rc<LocalService> {
        self.service.borrow().clone()
    }

    /// Something else is served here, from the next request on.
    pub(crate) fn serve(&self, service: Rc<LocalService>) {
        *self.service.borrow_mut() = service;
    }

    /// Accepts no more; what is under way may go on for as long as the service says.
    pub(crate) fn close(&self, worker: &Worker) {
        for task in self.accepting.borrow_mut().drain(..) {
            task.abort();
        }
        let time = self.service.borrow().plan.http.timeouts.drain;
        self.over.set(Some(worker.timers.now() + ticks(time)));
        worker.timers.wake_all();
    }

    /// Whether connections are to end when they can.
    pub(crate) fn is_closing(&self) -> bool {
        self.over.get().is_some()
    }

    /// Whether connections are to end at once.
    pub(crate) fn is_over(&self, worker: &Worker) -> bool {
        self.over
            .get()
            .is_some_and(|over| worker.timers.now() >= over)
    }
}

async fn accept(worker: Rc<Worker>, listener: Rc<Listener>, socket: TcpListener) {
    loop {
        match socket.accept().await {
            Ok((tcp, peer)) => {
                let peer = canonical(peer);
                spawn_local(client::serve(worker.clone(), listener.clone(), tcp, peer));
            }
            // Those that left before they were accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                let service = listener.service();
                tracing::warn!(service = service.plan.name, "cannot accept: {error}");
                sleep(BREATHER).await;
            }
        }
    }
}

/// An address as people write it.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}
