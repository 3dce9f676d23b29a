//! Keys in etcd.

use std::{error::Error as _, fs, path::Path, time::Duration};

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, Event, EventType, GetOptions,
    Identity, KeyValue, KvClient, PutOptions, TlsOptions, Txn, TxnOp, WatchOptions, WatchResponse,
    WatchStream,
};
use futures::FutureExt as _;
use tokio::time::timeout;

use super::location::Location;

/// How long etcd may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two signs of life on an idle connection. etcd ends one where they come more often than
/// every five seconds (`--grpc-keepalive-min-time`).
const SIGN_OF_LIFE: Duration = Duration::from_secs(6);
/// What etcd does at once: operations, of which it takes 128 unless it is told otherwise, and
/// bytes, of which it takes 1.5 MiB.
const TOGETHER: usize = 100;
const TOGETHER_BYTES: usize = 1 << 20;
/// The largest answer that is taken.
const LARGEST: usize = 256 << 20;

/// What is wrong with etcd, or the way to it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not answer.
    #[error("etcd does not answer within {} seconds", PATIENCE.as_secs())]
    Silent,
    /// What it or the connection says.
    #[error("{}", words(.0))]
    Etcd(Box<Error>),
    /// It has ended a watch.
    #[error("etcd has ended the watch: {0}")]
    WatchEnded(String),
    /// It does not know a lease any more.
    #[error("etcd has let this node's lease expire")]
    LeaseLost,
    /// A file that the address names.
    #[error("{0}: {1}")]
    File(String, std::io::Error),
}

impl StoreError {
    /// Whether etcd has surely not done what it was told, and can be told other things.
    pub(super) fn is_refusal(&self) -> bool {
        let Self::Etcd(error) = self else {
            return false;
        };
        let Error::GRpcStatus(status) = &**error else {
            return false;
        };
        // By number, as the client does not show the type: invalid argument, permission denied,
        // resource exhausted (the quota).
        [3, 7, 8].contains(&i32::from(status.code()))
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        Self::Etcd(error.into())
    }
}

/// What it says, without the client's way to put it, and what is behind that.
fn words(error: &Error) -> String {
    let (words, mut cause) = match error {
        Error::GRpcStatus(status) => (status.message().to_owned(), status.source()),
        other => return other.to_string(),
    };
    let mut last = None;
    while let Some(next) = cause {
        last = Some(next.to_string());
        cause = next.source();
    }
    match last {
        Some(last) if !words.contains(&last) => format!("{words}: {last}"),
        _ => words,
    }
}

/// A value, and the revision in which it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) text: Vec<u8>,
    pub(super) revision: i64,
}

impl From<&KeyValue> for Stored {
    fn from(found: &KeyValue) -> Self {
        Self {
            text: found.value().to_vec(),
            revision: found.mod_revision(),
        }
    }
}

/// A key, and what is under it now; nothing where it is gone.
pub(super) type News = (String, Option<Vec<u8>>);

/// A connection.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) client: Client,
    kv: KvClient,
}

impl Store {
    pub(super) async fn connect(location: &Location) -> Result<Self, StoreError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(PATIENCE)
            .with_keep_alive(SIGN_OF_LIFE, PATIENCE)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((user, file)) = &location.user {
            let password = String::from_utf8_lossy(&read(file)?).trim_end().to_owned();
            options = options.with_user(user, password);
        }
        let mut scheme = "http";
        if let Some(tls) = &location.tls {
            scheme = "https";
            let mut how = TlsOptions::new();
            how = match &tls.ca {
                Some(file) => how.ca_certificate(Certificate::from_pem(read(file)?)),
                None => how.with_native_roots(),
            };
            if let Some((certificate, key)) = &tls.identity {
                how = how.identity(Identity::from_pem(read(certificate)?, read(key)?));
            }
            options = options.with_tls(how);
        }
        let endpoints = location.endpoints.iter();
        let endpoints: Vec<_> = endpoints.map(|host| format!("{scheme}://{host}")).collect();
        let client = soon(Client::connect(endpoints, Some(options))).await?;
        let kv = client.kv_client().max_decoding_message_size(LARGEST);
        Ok(Self { client, kv })
    }

    /// What is under a key, if anything, and etcd's revision at that time.
    pub(super) async fn get(&mut self, key: &str) -> Result<(Option<Stored>, i64), StoreError> {
        let answer = soon(self.kv.get(key, None)).await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        Ok((answer.kvs().first().map(Stored::from), revision))
    }

    /// Puts a value under a key if it was last written in this revision (0: never). The new
    /// revision; or nothing, where it was not the last.
    pub(super) async fn replace(
        &mut self,
        key: &str,
        last: i64,
        text: Vec<u8>,
    ) -> Result<Option<i64>, StoreError> {
        let unchanged = Compare::mod_revision(key, CompareOp::Equal, last);
        let put = TxnOp::put(key, text, None);
        let txn = Txn::new().when([unchanged]).and_then([put]);
        let answer = soon(self.kv.txn(txn)).await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        Ok(answer.succeeded().then_some(revision))
    }

    /// What is under all keys that begin with this, and etcd's revision at that time.
    pub(super) async fn get_all(&mut self, prefix: &str) -> Result<(Vec<News>, i64), StoreError> {
        let options = GetOptions::new().with_prefix();
        let answer = soon(self.kv.get(prefix, Some(options))).await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        let found = answer.kvs().iter();
        let found = found.map(|found| (key(found), Some(found.value().to_vec())));
        Ok((found.collect(), revision))
    }

    /// Puts values under keys, for as long as a lease lasts, or removes what is there.
    pub(super) async fn put_all(mut self, lease: i64, news: Vec<News>) -> Result<(), StoreError> {
        let (mut together, mut bytes) = (Vec::new(), 0);
        for (key, value) in news {
            let size = key.len() + value.as_ref().map_or(0, Vec::len);
            if together.len() == TOGETHER || bytes + size > TOGETHER_BYTES {
                self.do_all(std::mem::take(&mut together)).await?;
                bytes = 0;
            }
            bytes += size;
            together.push(match value {
                Some(value) => TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease))),
                None => TxnOp::delete(key, None),
            });
        }
        self.do_all(together).await
    }

    async fn do_all(&mut self, operations: Vec<TxnOp>) -> Result<(), StoreError> {
        let txn = Txn::new().and_then(operations);
        soon(self.kv.txn(txn)).await.map(drop)
    }

    /// What becomes of a key from a revision on.
    pub(super) async fn watch(&mut self, key: &str, from: i64) -> Result<Watch, StoreError> {
        self.watch_with(key, WatchOptions::new().with_start_revision(from))
            .await
    }

    /// The same, of all keys that begin with this.
    pub(super) async fn watch_all(&mut self, prefix: &str, from: i64) -> Result<Watch, StoreError> {
        let options = WatchOptions::new().with_prefix();
        self.watch_with(prefix, options.with_start_revision(from))
            .await
    }

    async fn watch_with(&mut self, key: &str, options: WatchOptions) -> Result<Watch, StoreError> {
        let mut client = self
            .client
            .watch_client()
            .max_decoding_message_size(LARGEST);
        let stream = soon(client.watch(key, Some(options))).await?;
        Ok(Watch(stream))
    }
}

/// News of keys.
pub(super) struct Watch(WatchStream);

impl Watch {
    /// The last of what has come; nothing where the key is gone. Who is behind skips what it has missed.
    pub(super) async fn next(&mut self) -> Result<Option<Stored>, StoreError> {
        let mut last = None;
        loop {
            let message = match last {
                None => self.message().await?,
                // It waits for nothing, so what was read is not lost where this is given up.
                Some(_) => match self.message().now_or_never() {
                    Some(message) => message?,
                    None => return Ok(last.flatten()),
                },
            };
            if let Some(event) = message.events().last() {
                last = Some(there(event).map(Stored::from));
            }
        }
    }

    /// All that has come.
    pub(super) async fn all(&mut self) -> Result<Vec<News>, StoreError> {
        let message = self.message().await?;
        let news = message.events().iter().filter_map(|event| {
            let value = there(event).map(|found| found.value().to_vec());
            Some((key(event.kv()?), value))
        });
        Ok(news.collect())
    }

    async fn message(&mut self) -> Result<WatchResponse, StoreError> {
        let message = self.0.message().await?;
        let message = message.ok_or_else(|| StoreError::WatchEnded("no reason".to_owned()))?;
        if message.canceled() {
            let reason = match message.compact_revision() {
                0 => message.cancel_reason().to_owned(),
                revision => format!("what was before revision {revision} is compacted"),
            };
            return Err(StoreError::WatchEnded(reason));
        }
        Ok(message)
    }
}

/// What an event leaves under its key.
fn there(event: &Event) -> Option<&KeyValue> {
    let put = event.event_type() == EventType::Put;
    event.kv().filter(|_| put)
}

fn key(found: &KeyValue) -> String {
    String::from_utf8_lossy(found.key()).into_owned()
}

pub(super) async fn soon<T>(
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, StoreError> {
    let answer = timeout(PATIENCE, answer).await;
    Ok(answer.map_err(|_| StoreError::Silent)??)
}

fn read(file: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(file).map_err(|error| StoreError::File(file.display().to_string(), error))
}
