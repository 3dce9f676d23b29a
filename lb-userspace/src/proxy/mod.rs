//! The L7 proxy: what serves services of mode `local`.
//!
//! A request: `listener` accepts, `client` speaks HTTP with the client, `request` finds a pool,
//! `balance` a backend of it, `upstream` a connection to that, and the answer goes back the same
//! way. All of it on one worker's thread (`worker`), so that nothing is locked and little is shared:
//! `backend` and `stats` are what workers share. Configuration comes as one immutable value
//! (`snapshot`), which `compile` makes from what the packet path's maps are made of, too.

pub mod access_log;
mod backend;
mod balance;
mod client;
mod compile;
pub mod cookies;
mod date;
mod executor;
mod files;
mod h1;
pub mod headers;
mod io;
mod lasting;
pub mod limits;
mod listen;
mod listener;
mod local;
pub mod proxy_protocol;
mod request;
pub mod route;
mod snapshot;
mod stats;
pub mod sticky;
mod timers;
pub mod tls;
pub mod traces;
mod tunnel;
mod upstream;
mod worker;

use std::{
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use regex::Regex;
use tokio::sync::watch;

use self::{
    compile::Registry,
    listen::Listeners,
    snapshot::Snapshot,
    traces::{Traces, TracesView},
};
pub use self::{
    compile::Unusable,
    files::bad_files,
    listen::{ListenError, Listening},
    stats::{BackendHttpCounters, HttpCounters},
};
use crate::{config::Config, desired::Desired};

/// How long the workers may take to take a snapshot over before nobody waits for them.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a change cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Unready {
    /// A VIP cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Something that the configuration names cannot be used.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

/// The proxy, as the state owner holds it. Its workers start with the first service.
pub struct Proxy {
    workers: usize,
    registry: Registry,
    listeners: Listeners,
    running: Option<Running>,
    /// Of an agent before this one, until it is known which are needed.
    taken_over: Listening,
    /// Until it is opened: what the workers are to do then.
    held: Option<Snapshot>,
}

struct Running {
    snapshots: watch::Sender<Arc<Snapshot>>,
    done: mpsc::Receiver<()>,
    threads: Vec<JoinHandle<()>>,
}

/// A change that can be made: every socket and certificate that it needs is there.
pub struct Prepared {
    listeners: Listeners,
    snapshot: Snapshot,
}

impl Proxy {
    /// A proxy of so many workers, which serves nothing before it is opened; 0: as many as there
    /// are CPUs.
    pub fn new(workers: usize) -> Self {
        let workers = match workers {
            0 => worker::cpus().len().max(1),
            workers => workers,
        };
        Self {
            workers,
            registry: Registry::new(workers),
            listeners: Listeners::default(),
            running: None,
            taken_over: Listening::new(),
            held: Some(Snapshot::default()),
        }
    }

    /// The same, with a place for the spans of traced requests.
    pub fn tracing(mut self, traces: Option<Arc<Traces>>) -> Self {
        self.registry.traces = traces;
        self
    }

    /// What has become of spans, if they are exported.
    pub fn traces(&self) -> Option<TracesView> {
        Some(self.registry.traces.as_ref()?.view())
    }

    /// The same, going on with the sockets of an agent before this one: what waits in them is
    /// accepted too.
    pub fn take_over(mut self, taken_over: Listening) -> Self {
        self.taken_over = taken_over;
        self
    }

    /// Gets ready for a change: binds what is not bound yet, and reads certificates.
    ///
    /// # Errors
    ///
    /// See [`Unready`]; nothing has changed then.
    pub fn prepare(&mut self, config: &Config, desired: &Desired) -> Result<Prepared, Unready> {
        let services = desired.local.iter().map(|(name, local)| {
            let address = SocketAddr::new(local.address, local.port);
            (name.as_str(), address)
        });
        let listeners = self
            .listeners
            .with(services, self.workers, &self.taken_over)?;
        let snapshot = self.registry.snapshot(config, desired, &listeners)?;
        Ok(Prepared {
            listeners,
            snapshot,
        })
    }

    /// Makes a change; the workers have taken it over when this returns, if it is open.
    ///
    /// # Errors
    ///
    /// The workers cannot be started.
    pub fn commit(&mut self, prepared: Prepared) -> anyhow::Result<()> {
        self.listeners = prepared.listeners;
        let running = match &mut self.running {
            Some(running) => running,
            None if prepared.snapshot.listeners.is_empty() => return Ok(()),
            none => none.insert(Running::start(self.workers)?),
        };
        match &mut self.held {
            Some(held) => *held = prepared.snapshot,
            None => running.publish(prepared.snapshot),
        }
        Ok(())
    }

    /// Begins to accept connections. Those that have come since the sockets were bound wait.
    pub fn open(&mut self) {
        self.taken_over.clear();
        if let (Some(held), Some(running)) = (self.held.take(), &self.running) {
            running.publish(held);
        }
    }

    /// Its sockets, for another process to accept from.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn share(&self) -> std::io::Result<Listening> {
        self.listeners.share()
    }

    /// Accepts no more. What is under way goes on; dropping this waits for it.
    pub fn close(&mut self) {
        self.listeners = Listeners::default();
        if let Some(running) = &self.running {
            running.publish(Snapshot::default());
        }
    }

    /// Reads certificates again that have changed; connections keep theirs.
    pub fn refresh(&self) {
        self.registry.refresh();
    }

    /// What was done for a service.
    pub fn service_counters(&self, name: &str) -> Option<HttpCounters> {
        let mut view = HttpCounters::default();
        self.registry.service(name)?.add_to(&mut view);
        Some(view)
    }

    /// The certificates that a service's clients are shown.
    pub fn certificates(&self, name: &str) -> Vec<tls::Expiry> {
        let service = self.registry.compiled(name);
        let server = service.and_then(|service| service.tls.as_ref()?.server.as_ref());
        server.map(tls::Server::expiries).unwrap_or_default()
    }

    /// Lines of a service's access log that were dropped, if it has one.
    pub fn log_dropped(&self, name: &str) -> Option<u64> {
        Some(self.registry.compiled(name)?.log.as_ref()?.dropped())
    }

    /// What a backend was sent.
    pub fn backend_counters(&self, pool: &str, name: &str) -> Option<BackendHttpCounters> {
        let mut sum: Option<BackendHttpCounters> = None;
        for backend in self.registry.backends(pool, name) {
            backend.stats.add_to(sum.get_or_insert_default());
        }
        sum
    }

    /// Requests and tunnels that a backend has.
    pub fn in_flight(&self, pool: &str, name: &str) -> u64 {
        let backends = self.registry.backends(pool, name);
        backends.map(|backend| u64::from(backend.in_flight())).sum()
    }
}

impl Drop for Proxy {
    /// Closes the listeners, and waits until what is under way has ended or its time is over.
    fn drop(&mut self) {
        self.close();
        let Some(running) = self.running.take() else {
            return;
        };
        drop(running.snapshots);
        for thread in running.threads {
            if thread.join().is_err() {
                tracing::error!("a worker of the proxy has panicked");
            }
        }
    }
}

impl Running {
    fn start(workers: usize) -> anyhow::Result<Running> {
        let (snapshots, taken) = watch::channel(Arc::default());
        let (tell, done) = mpsc::channel();
        let threads = (0..workers).map(|number| worker::spawn(number, taken.clone(), tell.clone()));
        let threads = threads.collect::<anyhow::Result<_>>()?;
        let running = Running {
            snapshots,
            done,
            threads,
        };
        running.wait(Instant::now() + PATIENCE);
        Ok(running)
    }

    fn publish(&self, snapshot: Snapshot) {
        while self.done.try_recv().is_ok() {}
        self.snapshots.send_replace(Arc::new(snapshot));
        self.wait(Instant::now() + PATIENCE);
    }

    /// Until every worker has said that it is done.
    fn wait(&self, until: Instant) {
        for _ in &self.threads {
            let left = until.saturating_duration_since(Instant::now());
            if self.done.recv_timeout(left).is_err() {
                tracing::warn!("a worker of the proxy is slow to take a change over");
                return;
            }
        }
    }
}

/// An expression that matches text from its beginning to its end.
///
/// # Errors
///
/// It is none, or would need more than 1 MiB when compiled.
pub(crate) fn regex(expression: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(&format!("^(?:{expression})$"))
        .size_limit(1 << 20)
        .build()
}
