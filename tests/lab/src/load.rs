//! Load, and counting who answers it.

mod http;
mod short;
mod tally;
mod udp;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
pub use tally::Results;
use tally::Tally;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{Namespace, task::Task};

/// What load is to do.
#[derive(Clone, Debug)]
pub struct Work {
    /// The server, or what stands before it.
    pub target: SocketAddr,
    /// How many requests to make in all; `None` until stopped.
    pub requests: Option<u64>,
    /// How many clients make them, each one request at a time.
    pub clients: usize,
    /// After how many requests a client takes a new connection, for UDP a new source port.
    pub per_connection: u64,
    /// How often a request that failed is made again, over another connection, before it counts
    /// as failed: what browsers and `curl --retry` do.
    pub retries: u32,
    /// How long a client rests between two connections.
    pub rest: Duration,
    /// How long an answer, or a connection, may take.
    pub timeout: Duration,
}

impl Work {
    /// So many requests by 16 clients, ten a connection, five seconds for each.
    pub fn new(target: SocketAddr, requests: u64) -> Self {
        Self {
            requests: Some(requests),
            ..Self::endless(target)
        }
    }

    /// The same, until it is stopped.
    pub fn endless(target: SocketAddr) -> Self {
        Self {
            target,
            requests: None,
            clients: 16,
            per_connection: 10,
            retries: 0,
            rest: Duration::ZERO,
            timeout: Duration::from_secs(5),
        }
    }

    /// Takes a step, for as long as one may take.
    async fn within<T>(&self, step: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(self.timeout, step)
            .await
            .unwrap_or_else(|_| Err(anyhow!("nothing within {:?}", self.timeout)))
    }

    /// Waits for as long as a client is to rest.
    async fn rest(&self) {
        // A sleep of no time may take a millisecond.
        if !self.rest.is_zero() {
            sleep(self.rest).await;
        }
    }
}

/// Load that is being made. Dropping it ends it at once.
pub struct Load {
    tally: Arc<Tally>,
    task: Task,
}

impl Load {
    /// `GET /` over and over; the answer's body, without white space around it, is the name of
    /// the backend.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn http(from: &Namespace, work: Work) -> Result<Self> {
        Self::start(from, work, http::client)
    }

    /// The same, a connection for each request, as many as can be: the server ends them. What has
    /// failed is not tried again.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn short(from: &Namespace, work: Work) -> Result<Self> {
        Self::start(from, work, short::client)
    }

    /// Datagrams to echo servers ([`crate::servers::echo`]). None is sent twice, and a lost one
    /// is a failure.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn udp(from: &Namespace, work: Work) -> Result<Self> {
        Self::start(from, work, udp::client)
    }

    fn start<F>(
        from: &Namespace,
        work: Work,
        client: impl Fn(Arc<Work>, Arc<Tally>) -> F + Send + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tally = Arc::new(Tally::new(work.requests));
        let shared = Arc::clone(&tally);
        let task = Task::start(from, async move || {
            let work = Arc::new(work);
            let clients = (0..work.clients).map(|_| client(Arc::clone(&work), Arc::clone(&shared)));
            clients.collect::<JoinSet<_>>().join_all().await;
        })?;
        Ok(Self { tally, task })
    }

    /// How it stands now.
    pub fn results(&self) -> Results {
        self.tally.results()
    }

    /// Waits until all requests were made.
    ///
    /// # Errors
    /// The load is endless.
    pub fn finish(self) -> Result<Results> {
        self.tally.ensure_finite()?;
        self.task.finish();
        Ok(self.tally.results())
    }

    /// Begins no more requests, and waits for those that are begun.
    pub fn stop(self) -> Results {
        self.tally.stop();
        self.task.finish();
        self.tally.results()
    }
}
