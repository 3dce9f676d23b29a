//! A checker to drive, and servers that answer as a test wants.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use lb_userspace::health::{self, Change, Check, Health, Kind, Retarget, Target};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// Longer than anything takes that does happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A time limit of checks that are not to hit it.
pub(crate) const AMPLE: Duration = Duration::from_secs(60);

/// Waits for `event`, which must happen.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, event).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// A running checker.
pub(crate) struct Checker {
    pub(crate) targets: mpsc::UnboundedSender<Retarget>,
    pub(crate) changes: mpsc::Receiver<Change>,
}

impl Checker {
    pub(crate) fn start(targets: Vec<Target>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let checker = Self {
            targets: sender,
            changes: health::spawn(receiver),
        };
        checker.set(targets);
        checker
    }

    /// All of [`target`]'s pool.
    pub(crate) fn set(&self, targets: Vec<Target>) {
        let retarget = Retarget {
            pool: "web".into(),
            backend: None,
            targets,
        };
        self.targets.send(retarget).unwrap();
    }

    pub(crate) async fn change(&mut self) -> Change {
        soon("a change", self.changes.recv()).await.unwrap()
    }

    /// The next change, of whichever target.
    pub(crate) async fn verdict(&mut self) -> (Health, String) {
        let Change { health, reason, .. } = self.change().await;
        (health, reason)
    }
}

/// The first verdict on `target`.
pub(crate) async fn first_verdict(target: Target) -> (Health, String) {
    Checker::start(vec![target]).verdict().await
}

/// Backend "a" of pool "web", checked every 5 ms.
pub(crate) fn target(address: SocketAddr, kind: Kind) -> Target {
    Target {
        pool: "web".into(),
        backend: "a".into(),
        address,
        check: Arc::new(Check {
            kind,
            interval: Duration::from_millis(5),
            jitter: 20,
            timeout: AMPLE,
            proxy_protocol: None,
            rise: 1,
            fall: 1,
        }),
    }
}

/// `GET /` that expects 200 to 299.
pub(crate) fn get() -> Kind {
    Kind::Http {
        path: "/".into(),
        host: None,
        status: 200..=299,
        body_contains: None,
    }
}

/// [`get`], with something to find in the body.
pub(crate) fn get_containing(text: &str) -> Kind {
    Kind::Http {
        path: "/".into(),
        host: None,
        status: 200..=299,
        body_contains: Some(text.into()),
    }
}

/// A response without a body.
pub(crate) fn status(status: u16) -> String {
    format!("HTTP/1.1 {status} Some Reason\r\nContent-Length: 0\r\n\r\n")
}

/// A server; gone when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Heads of the requests, sent before they are answered.
    pub(crate) requests: mpsc::UnboundedReceiver<String>,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on `address` and has `answer` deal with every connection that sent a request,
    /// counted from 0. The connection is closed when that is done.
    pub(crate) async fn on<F>(
        address: &str,
        mut answer: impl FnMut(usize, TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, requests) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut answers = JoinSet::new();
            let mut count = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(head) = head(&mut stream).await else {
                    continue;
                };
                let _ = heads.send(head);
                answers.spawn(answer(count, stream));
                count += 1;
            }
        });
        Self {
            address,
            requests,
            task,
        }
    }

    /// Answers the n-th request with the n-th response, and all after the last with the last.
    pub(crate) async fn answering(responses: Vec<Vec<u8>>) -> Self {
        Self::on("127.0.0.1:0", move |count, mut stream| {
            let response = responses[count.min(responses.len() - 1)].clone();
            async move {
                // Fails when the checker has seen enough.
                let _ = stream.write_all(&response).await;
            }
        })
        .await
    }

    /// Sends `start` to every client, then nothing, until the client is gone.
    pub(crate) async fn stalling(start: &'static [u8]) -> Self {
        Self::on("127.0.0.1:0", move |_, mut stream| async move {
            let _ = stream.write_all(start).await;
            gone(&mut stream).await;
        })
        .await
    }

    pub(crate) async fn request(&mut self) -> String {
        soon("a request", self.requests.recv()).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits for the peer to close or reset the connection.
pub(crate) async fn gone(stream: &mut TcpStream) {
    while !matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)) {}
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}
