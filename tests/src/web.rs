//! An HTTP server for the proxy's tests, on a backend: HTTP/1.1 and HTTP/2 on one port. What it
//! does is in the path.
//!
//! | path | answer |
//! |---|---|
//! | `/`, `/name` | its backend's name |
//! | `/echo` | the request's body, as it comes, and its trailers |
//! | `/head` | the request's line and headers, a line each |
//! | `/bytes/N` | N bytes |
//! | `/stream/N` | N MiB, as they are taken, without a length |
//! | `/swallow` | how many bytes the request's body had |
//! | `/page` | a page whose script asks for `/name` and says by which protocol |
//! | `/status/N` | that status |
//! | `/cache/WORDS` | its name, with `Cache-Control: WORDS` |
//! | `/slow/MS` | its name, after so many milliseconds |
//! | `/stall` | headers, a byte, and then nothing |
//! | `/drop` | none: the connection closes |
//! | `/broken` | half of what it promised, and the connection closes |
//! | `/websocket` | every message back |

use std::{
    convert::Infallible,
    net::{Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use lab::Backend;
use tokio::{net::TcpListener, sync::oneshot, time::sleep};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

type Body = UnsyncBoxBody<Bytes, Broken>;

/// A body that breaks off.
#[derive(Debug, thiserror::Error)]
#[error("broken on purpose")]
pub struct Broken;

/// A running server. It ends, and its connections with it, when this is dropped.
pub struct Web {
    requests: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    /// Starts one on all of a backend's addresses.
    ///
    /// # Errors
    ///
    /// The port is taken.
    pub fn start(backend: &Backend, port: u16) -> Result<Web> {
        let requests = Arc::new(AtomicU64::new(0));
        let connections = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = oneshot::channel();
        let listener = backend.namespace.run(|| {
            let socket = std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
            socket.set_nonblocking(true)?;
            std::io::Result::Ok(socket)
        })?;
        let listener = listener.with_context(|| format!("port {port} of {}", backend.name))?;
        let name: Arc<str> = backend.name.as_str().into();
        let (counted, accepted) = (requests.clone(), connections.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                tokio::select! {
                    _ = serve(listener, name, counted, accepted) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Web {
            requests,
            connections,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    name: Arc<str>,
    requests: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (tcp, peer) = listener.accept().await?;
        connections.fetch_add(1, Ordering::Relaxed);
        let (name, requests) = (name.clone(), requests.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            requests.fetch_add(1, Ordering::Relaxed);
            let head = request.method() == Method::HEAD;
            let answer = answer(request, name.clone(), peer);
            async move {
                let answer = answer.await?;
                Ok::<_, Broken>(if head { without_body(answer) } else { answer })
            }
        });
        tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            let _ = builder
                .serve_connection_with_upgrades(TokioIo::new(tcp), service)
                .await;
        });
    }
}

const PAGE: &str = r#"<!doctype html><title>Weir</title><p id="says"></p><script>
const ask = number => fetch("/name?" + number).then(answer => answer.text());
Promise.all([...Array(50).keys()].map(ask)).then(names => {
    const protocols = performance.getEntries().map(entry => entry.nextHopProtocol).filter(Boolean);
    document.getElementById("says").textContent =
        `${names.length} answers by ${[...new Set(protocols)]}`;
});
</script>
"#;

/// The length of a body, of which nothing is kept.
async fn length(mut body: Incoming) -> Result<u64, Broken> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Broken)?;
        length += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(length)
}

/// An error as an answer closes the connection.
async fn answer(
    request: Request<Incoming>,
    name: Arc<str>,
    peer: SocketAddr,
) -> Result<Response<Body>, Broken> {
    let path = request.uri().path().to_owned();
    let (what, argument) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let number = argument.parse::<usize>().unwrap_or(0);
    let body = match what {
        "" | "name" => text(format!("{name}\n")),
        "echo" => request.into_body().map_err(|_| Broken).boxed_unsync(),
        "head" => text(head(&request, peer)),
        "bytes" => text("x".repeat(number)),
        "stream" => {
            let piece = || Ok(Frame::data(Bytes::from_static(&[b'x'; 1 << 16])));
            let pieces = futures::stream::iter(std::iter::repeat_with(piece).take(number << 4));
            StreamBody::new(pieces).boxed_unsync()
        }
        "swallow" => text(format!("{}\n", length(request.into_body()).await?)),
        "page" => {
            let mut response = Response::new(text(PAGE.to_owned()));
            let html = hyper::header::HeaderValue::from_static("text/html");
            response.headers_mut().insert("content-type", html);
            return Ok(response);
        }
        "status" => {
            let mut response = Response::new(text(format!("{name}\n")));
            *response.status_mut() = StatusCode::from_u16(number as u16).unwrap_or_default();
            return Ok(response);
        }
        "cache" => {
            let mut response = Response::new(text(format!("{name}\n")));
            let words = hyper::header::HeaderValue::from_str(argument).map_err(|_| Broken)?;
            response.headers_mut().insert("cache-control", words);
            return Ok(response);
        }
        "slow" => {
            sleep(Duration::from_millis(number as u64)).await;
            text(format!("{name}\n"))
        }
        "stall" => pieces([Ok("x"), Err(None)]),
        "broken" => {
            let mut response = Response::new(pieces([Ok("half"), Err(Some(Broken))]));
            let length = hyper::header::HeaderValue::from_static("8");
            response.headers_mut().insert("content-length", length);
            return Ok(response);
        }
        "drop" => return Err(Broken),
        "websocket" => return Ok(websocket(request)),
        _ => {
            let mut response = Response::new(Empty::new().map_err(never).boxed_unsync());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    Ok(Response::new(body))
}

/// The answer to HEAD. hyper sees to it in HTTP/1.1 alone.
fn without_body(mut answer: Response<Body>) -> Response<Body> {
    if let Some(length) = answer.body().size_hint().exact() {
        answer.headers_mut().insert("content-length", length.into());
    }
    answer.map(|_| Empty::new().map_err(never).boxed_unsync())
}

/// Switches to a WebSocket that sends every message back.
fn websocket(mut request: Request<Incoming>) -> Response<Body> {
    let key = request.headers().get("sec-websocket-key");
    let key = key.map(|key| derive_accept_key(key.as_bytes()));
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let io = TokioIo::new(upgraded);
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", key.unwrap_or_default())
        .body(Empty::new().map_err(never).boxed_unsync());
    response.expect("a valid response")
}

fn head(request: &Request<Incoming>, peer: SocketAddr) -> String {
    let mut text = format!(
        "{} {} {:?} from {}\n",
        request.method(),
        request.uri(),
        request.version(),
        peer.ip()
    );
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\n", value.to_str().unwrap_or("?"));
    }
    text
}

fn text(text: String) -> Body {
    Full::from(text).map_err(never).boxed_unsync()
}

fn never(never: Infallible) -> Broken {
    match never {}
}

/// Pieces one after another; `Err(None)`: nothing more, and no end.
fn pieces<const N: usize>(pieces: [Result<&'static str, Option<Broken>>; N]) -> Body {
    let stream = futures::stream::unfold(pieces.into_iter(), |mut pieces| async move {
        match pieces.next()? {
            Ok(piece) => Some((Ok(Frame::data(Bytes::from(piece))), pieces)),
            Err(Some(broken)) => {
                // What came before it is to arrive.
                sleep(Duration::from_millis(50)).await;
                Some((Err(broken), pieces))
            }
            Err(None) => std::future::pending().await,
        }
    });
    StreamBody::new(stream).boxed_unsync()
}
