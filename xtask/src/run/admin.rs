//! A client of the agent's admin API, for what the demo shows.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes, client::conn::http1::handshake, header::HOST};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Dropped packets by reason.
pub(super) type Drops = BTreeMap<String, u64>;

/// What is read of `/v1/status`.
#[derive(Deserialize)]
pub(super) struct Status {
    pub(super) interfaces: Vec<Interface>,
    /// Of no one service.
    pub(super) drops: Drops,
}

#[derive(Deserialize)]
pub(super) struct Interface {
    pub(super) interface: String,
    /// `native` or `generic`.
    pub(super) mode: String,
}

/// What is read of a service.
#[derive(Deserialize)]
pub(super) struct Service {
    pub(super) counters: ServiceCounters,
}

#[derive(Deserialize)]
pub(super) struct ServiceCounters {
    pub(super) drops: Drops,
}

/// What is read of a pool.
#[derive(Deserialize)]
pub(super) struct Pool {
    pub(super) backends: BTreeMap<String, Backend>,
}

#[derive(Clone, Deserialize)]
pub(super) struct Backend {
    pub(super) health: Health,
    pub(super) counters: BackendCounters,
}

#[derive(Clone, Deserialize)]
pub(super) struct Health {
    pub(super) status: String,
}

#[derive(Clone, Deserialize)]
pub(super) struct BackendCounters {
    pub(super) packets: u64,
}

/// The API at a Unix socket.
pub(super) struct Admin {
    socket: PathBuf,
}

impl Admin {
    pub(super) fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    pub(super) async fn status(&self) -> Result<Status> {
        self.get("/v1/status").await
    }

    pub(super) async fn services(&self) -> Result<BTreeMap<String, Service>> {
        self.get("/v1/services").await
    }

    pub(super) async fn pools(&self) -> Result<BTreeMap<String, Pool>> {
        self.get("/v1/pools").await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = timeout(PATIENCE, self.body(path)).await;
        let body = body.context("it takes too long").flatten();
        body.and_then(|body| Ok(serde_json::from_slice(&body)?))
            .with_context(|| format!("the agent does not answer to GET {path}"))
    }

    async fn body(&self, path: &str) -> Result<Bytes> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its error is also the request's.
        let _connection = tokio::spawn(connection);
        let request = Request::get(path).header(HOST, "weir");
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?);
        let response = response.await?;
        ensure!(
            response.status().is_success(),
            "status {}",
            response.status()
        );
        Ok(response.into_body().collect().await?.to_bytes())
    }
}
