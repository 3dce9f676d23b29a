//! Clients of the site: some read each of its parts, some write orders.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioExecutor;
use tokio::time::{sleep, timeout};
use weir_tests::https::Https;

use crate::scene::{NAME, Scene};

/// Readers of each part.
const READERS: usize = 2;
const PARTS: [&str; 3] = ["/", "/api/item", "/video/item"];
/// Writers of orders, one at a time each, which takes a fifth of a second.
const WRITERS: usize = 8;
/// Requests over one connection.
const PER_CONNECTION: usize = 25;
/// Between a client's requests.
const PAUSE: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_secs(20);

/// A request that was not answered with 200.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The order that it was to write, if any.
    pub(crate) order: Option<String>,
    /// 0: there was no answer, and `body` says why.
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) failures: Vec<Failure>,
    /// Those that were confirmed.
    pub(crate) orders: Vec<String>,
}

impl Outcome {
    fn count(&mut self, answer: Result<(u16, String)>, order: Option<String>) {
        self.requests += 1;
        match (answer, order) {
            (Ok((200, _)), order) => self.orders.extend(order),
            (answer, order) => {
                let (status, body) = answer.unwrap_or_else(|error| (0, format!("{error:#}")));
                self.failures.push(Failure {
                    order,
                    status,
                    body,
                });
            }
        }
    }
}

/// They are at it.
pub(crate) struct Clients {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    next: AtomicU64,
    outcome: Mutex<Outcome>,
}

impl Shared {
    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    pub(crate) fn start(scene: &Scene) -> Result<Clients> {
        let shared = Arc::new(Shared::default());
        // Half of them speak HTTP/2.
        let https = [scene.https(&["http/1.1"])?, scene.https(&["h2"])?];
        let (namespace, all) = (scene.lab.client().clone(), shared.clone());
        let thread = std::thread::spawn(move || {
            namespace.run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(async {
                    let paths = PARTS.iter().map(|path| Some(*path));
                    let readers = paths.flat_map(|path| std::iter::repeat_n(path, READERS));
                    let clients = readers.chain(std::iter::repeat_n(None, WRITERS));
                    let clients = clients.enumerate().map(|(number, path)| {
                        client(
                            all.clone(),
                            https[number % 2].clone(),
                            number % 2 == 1,
                            path,
                        )
                    });
                    futures::future::join_all(clients).await;
                });
                anyhow::Ok(())
            })?
        });
        Ok(Clients {
            shared,
            thread: Some(thread),
        })
    }

    /// What has failed so far.
    pub(crate) fn failures(&self) -> Vec<Failure> {
        self.shared.outcome().failures.clone()
    }

    /// Waits for what is under way.
    pub(crate) fn stop(mut self) -> Result<Outcome> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it runs")?;
        thread.join().ok().context("a client panicked")??;
        Ok(self.shared.outcome().clone())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// One client, which reads `path`, or else writes orders.
async fn client(shared: Arc<Shared>, https: Https, h2: bool, path: Option<&'static str>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let mut sender = Sender::open(&https, h2).await;
        for _ in 0..PER_CONNECTION {
            let number = shared.next.fetch_add(1, Ordering::Relaxed);
            let order = path.is_none().then(|| format!("no-{number}-"));
            let answer = match &mut sender {
                Ok(sender) => sender.ask(path, order.as_deref()).await,
                Err(error) => Err(anyhow::anyhow!("{error:#}")),
            };
            let broken = answer.is_err();
            shared.outcome().count(answer, order);
            sleep(PAUSE).await;
            if broken || shared.stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}

enum Sender {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

impl Sender {
    async fn open(https: &Https, h2: bool) -> Result<Sender> {
        let io = timeout(PATIENCE, https.connect()).await??;
        Ok(match h2 {
            false => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Sender::One(sender)
            }
            true => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Sender::Two(sender)
            }
        })
    }

    /// Status and body of the answer.
    async fn ask(&mut self, path: Option<&str>, order: Option<&str>) -> Result<(u16, String)> {
        let path = match order {
            Some(order) => format!("/api/orders/{order}"),
            None => path.unwrap_or("/").to_owned(),
        };
        let method = if order.is_some() { "POST" } else { "GET" };
        timeout(PATIENCE, async {
            let response = self.send(method, &path).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        })
        .await?
    }

    async fn send(&mut self, method: &str, path: &str) -> Result<Response<Incoming>> {
        let request = Request::builder().method(method);
        Ok(match self {
            Sender::One(sender) => {
                let request = request.uri(path).header("host", NAME);
                sender.ready().await?;
                sender.send_request(request.body(Empty::new())?).await?
            }
            Sender::Two(sender) => {
                let request = request.uri(format!("https://{NAME}{path}"));
                sender.ready().await?;
                sender.send_request(request.body(Empty::new())?).await?
            }
        })
    }
}
