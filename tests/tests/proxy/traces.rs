//! Spans of traced requests, at a collector.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use lab::{Process, retry};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value as Said,
    trace::v1::{Span, status::StatusCode},
};
use prost::Message as _;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};
use weir_tests::{agent::PATIENCE, certificate::self_signed};

use crate::scene::Scene;

/// Where the collector takes OTLP over gRPC, and over HTTP at this path.
const GRPC: u16 = 4317;
const HTTP: (u16, &str) = (4318, "/v1/traces");
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// What came: the service's name, and the spans.
type Came = Arc<Mutex<Vec<(String, Span)>>>;

/// A collector where the agent runs.
struct Collector {
    came: Came,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Service(Came);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        keep(&self.0, request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn keep(came: &Came, request: ExportTraceServiceRequest) {
    let mut came = came.lock().expect("no panic");
    for of_service in request.resource_spans {
        let resource = of_service.resource.unwrap_or_default();
        let name = text(&resource.attributes, "service.name").unwrap_or_default();
        let spans = of_service
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans);
        came.extend(spans.map(|span| (name.clone(), span)));
    }
}

/// The same over HTTP, with TLS where there is a certificate.
async fn serve_http(listener: TcpListener, tls: Option<TlsAcceptor>, came: Came) -> Result<()> {
    loop {
        let (tcp, _) = listener.accept().await?;
        let (tls, came) = (tls.clone(), came.clone());
        // An error closes the connection: nothing comes.
        tokio::spawn(async move {
            match tls {
                Some(tls) => speak(tls.accept(tcp).await?, came).await,
                None => speak(tcp, came).await,
            }
        });
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    came: Came,
) -> Result<()> {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let came = came.clone();
        async move {
            let (head, body) = request.into_parts();
            let kind = head.headers.get("content-type").map(|kind| kind.as_bytes());
            let asks = head.method == "POST" && head.uri.path() == HTTP.1;
            ensure!(asks && kind == Some(b"application/x-protobuf"), "{head:?}");
            let body = body.collect().await?.to_bytes();
            keep(&came, ExportTraceServiceRequest::decode(body)?);
            // A whole answer of that kind has no bytes.
            anyhow::Ok(hyper::Response::new(Empty::<Bytes>::new()))
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    Ok(connection.await?)
}

/// TLS with this certificate.
fn acceptor(chain: &Path, key: &Path) -> Result<TlsAcceptor> {
    let chain = vec![CertificateDer::from_pem_file(chain)?];
    let key = PrivateKeyDer::from_pem_file(key)?;
    let config = ServerConfig::builder().with_no_client_auth();
    Ok(Arc::new(config.with_single_cert(chain, key)?).into())
}

impl Collector {
    fn start(scene: &Scene) -> Result<Self> {
        Self::start_with(scene, None)
    }

    /// The same, which speaks TLS where it speaks HTTP.
    fn start_with(scene: &Scene, tls: Option<TlsAcceptor>) -> Result<Self> {
        let listen = |port| {
            let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
            socket.set_nonblocking(true)?;
            std::io::Result::Ok(socket)
        };
        let sockets = (scene.lab.lb()).run(move || [GRPC, HTTP.0].map(listen))?;
        let [grpc, http] = sockets;
        let (grpc, http) = (grpc?, http?);
        let came = Came::default();
        let service = TraceServiceServer::new(Service(came.clone()));
        let by_http = came.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::spawn(move || {
            let served = runtime.block_on(async {
                let http = serve_http(TcpListener::from_std(http)?, tls, by_http);
                let incoming = TcpIncoming::from(TcpListener::from_std(grpc)?);
                let serve = Server::builder()
                    .add_service(service)
                    .serve_with_incoming(incoming);
                // Connections that are open do not hold it up.
                tokio::select! {
                    served = serve => served?,
                    served = http => served?,
                    _ = stopped => {}
                }
                anyhow::Ok(())
            });
            served.expect("the collector serves");
        });
        Ok(Self {
            came,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Waits for the spans whose `url.path` begins so.
    fn spans(&self, path: &str, count: usize) -> Result<Vec<Span>> {
        retry(PATIENCE, || {
            let came = self.came.lock().expect("no panic");
            ensure!(
                came.iter().all(|(name, _)| name == "edge"),
                "another service"
            );
            let of_path = came.iter().filter(|(_, span)| {
                text(&span.attributes, "url.path").is_some_and(|is| is.starts_with(path))
            });
            let spans: Vec<_> = of_path.map(|(_, span)| span.clone()).collect();
            ensure!(spans.len() == count, "{} of {count} have come", spans.len());
            Ok(spans)
        })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Attributes = [opentelemetry_proto::tonic::common::v1::KeyValue];

fn all(attributes: &Attributes) -> BTreeMap<&str, String> {
    let said = attributes.iter().filter_map(|attribute| {
        let said = match attribute.value.as_ref()?.value.as_ref()? {
            Said::StringValue(text) => text.clone(),
            Said::IntValue(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        Some((attribute.key.as_str(), said))
    });
    said.collect()
}

fn text(attributes: &Attributes, key: &str) -> Option<String> {
    all(attributes).remove(key)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One in so many is traced; the agent is told of a collector, and how to speak to it.
fn scene(one_in: u32, queue: u32, protocol: &str) -> Result<Scene> {
    let http = json!({
        "trace": { "one_in": one_in },
        "routes": { "wrong": { "path_prefix": "/status" } },
    });
    let port = if protocol == "http" { HTTP.0 } else { GRPC };
    let mut scene = Scene::new(1, &http, &json!({}))?;
    scene.agent.configure(|document| {
        document["agent"]["traces"] = json!({
            "endpoint": format!("http://127.0.0.1:{port}"), "protocol": protocol,
            "service_name": "edge", "queue": queue,
        });
    })?;
    scene.agent.take_over()?;
    Ok(scene)
}

fn outcomes(scene: &Scene) -> Result<(u64, u64, u64)> {
    let traces = scene.agent.status()?.traces.context("no traces")?;
    Ok((traces.exported, traces.dropped, traces.failed))
}

#[test]
fn a_collector_gets_the_spans_of_traced_requests() -> Result<()> {
    spans_come_over("grpc")
}

#[test]
fn a_collector_gets_them_over_http() -> Result<()> {
    spans_come_over("http")
}

/// With TLS, where the system's authorities vouch for the collector; and not where they do not.
#[test]
fn a_collector_gets_them_over_https() -> Result<()> {
    let scene = scene(1, 100, "http")?;
    let directory = scene.lab.directory();
    let (chain, key) = self_signed(&directory, "collector", "localhost")?;
    let (other, _) = self_signed(&directory, "other", "localhost")?;
    let collector = Collector::start_with(&scene, Some(acceptor(&chain, &key)?))?;
    scene.agent.configure(|document| {
        let endpoint = format!("https://localhost:{}", HTTP.0);
        document["agent"]["traces"]["endpoint"] = json!(endpoint);
    })?;
    let believing = |authorities: &Path| {
        let mut command = scene.agent.newcomer();
        command.env("SSL_CERT_FILE", authorities);
        let agent = Process::spawn(command)?;
        retry(PATIENCE, || {
            let pid = scene.agent.status()?.pid;
            ensure!(pid == agent.id(), "not yet: {}", scene.agent.log());
            Ok(())
        })?;
        scene.get(&[&scene.url("/name")])?;
        anyhow::Ok(agent)
    };
    let _first = believing(&other)?;
    retry(PATIENCE, || {
        let outcomes = outcomes(&scene)?;
        ensure!(outcomes == (0, 0, 1), "{outcomes:?}");
        Ok(())
    })?;
    let _second = believing(&chain)?;
    ensure!(collector.spans("/name", 1)?.len() == 1);
    Ok(())
}

fn spans_come_over(protocol: &str) -> Result<()> {
    // No request without a parent is.
    let scene = scene(1_000_000, 100, protocol)?;
    let collector = Collector::start(&scene)?;
    let get = |flags: &str, path: &str| {
        let header = format!("traceparent: 00-{TRACE}-{PARENT}-{flags}");
        scene.curl(&["-H", &header, "-A", "tester", &scene.url(path)])
    };
    let seen = get("01", "/head?a=b")?;
    let seen = String::from_utf8(seen.stdout)?;
    get("00", "/head/unsampled")?;
    get("01", "/status/503")?;
    let own = scene.lab.client_addresses().v4.to_string();
    let span = &collector.spans("/head", 1)?[0];
    ensure!(
        hex(&span.trace_id) == TRACE && hex(&span.parent_span_id) == PARENT,
        "{span:?}"
    );
    // The backend's span will be a child of this one.
    let told = format!("traceparent: 00-{TRACE}-{}-01", hex(&span.span_id));
    ensure!(seen.contains(&told), "{seen}: not {told}");
    ensure!(
        span.end_time_unix_nano > span.start_time_unix_nano,
        "{span:?}"
    );
    let says = all(&span.attributes);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("url.path", "/head"),
        ("url.query", "a=b"),
        ("client.address", &*own),
        ("user_agent.original", "tester"),
        ("http.response.status_code", "200"),
        ("network.protocol.version", "1.1"),
        ("weir.service", "web"),
        ("weir.pool", "web"),
        ("weir.backend", "be1"),
    ] {
        ensure!(
            says.get(key).is_some_and(|said| said == value),
            "{key}: {says:?}"
        );
    }
    let code = |span: &Span| span.status.as_ref().map(|status| status.code());
    ensure!(code(span) != Some(StatusCode::Error), "{span:?}");
    let wrong = &collector.spans("/status", 1)?[0];
    ensure!(code(wrong) == Some(StatusCode::Error), "{wrong:?}");
    ensure!(wrong.name == "GET wrong", "{wrong:?}");
    retry(PATIENCE, || {
        let outcomes = outcomes(&scene)?;
        ensure!(outcomes == (2, 0, 0), "{outcomes:?}");
        Ok(())
    })?;
    ensure!(
        scene
            .agent
            .metric("weir_trace_spans_total{outcome=\"exported\"}")?
            == 2
    );
    // What is under way when the agent ends comes, too.
    get("01", "/name/last")?;
    let agent = scene.agent;
    agent.end(nix::sys::signal::Signal::SIGTERM)?;
    ensure!(collector.spans("/name/last", 1)?.len() == 1);
    Ok(())
}

/// Where the collector is not there, requests do not notice; what is lost is counted.
#[test]
fn spans_that_nobody_takes_are_counted() -> Result<()> {
    let scene = scene(1, 10, "http")?;
    let urls = vec![scene.url("/name"); 200];
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let answers = scene.get(&[&["--fail"], &urls[..]].concat())?;
    ensure!(answers.lines().count() == 200, "{answers}");
    retry(PATIENCE, || {
        let (exported, dropped, failed) = outcomes(&scene)?;
        let all = (exported == 0, dropped > 0, failed > 0, dropped + failed);
        ensure!(all == (true, true, true, 200), "{dropped} {failed}");
        Ok(())
    })?;
    // It comes: those of requests from now on get there.
    let collector = Collector::start(&scene)?;
    retry(PATIENCE, || {
        scene.get(&[&scene.url("/name")])?;
        ensure!(outcomes(&scene)?.0 > 0, "none has come");
        Ok(())
    })?;
    ensure!(!collector.came.lock().expect("no panic").is_empty());
    Ok(())
}

#[test]
fn an_endpoint_that_is_none_is_refused() -> Result<()> {
    let mut scene = Scene::new(1, &json!({}), &json!({}))?;
    scene.agent.configure(|document| {
        document["agent"]["traces"] = json!({ "endpoint": "localhost:4317" });
    })?;
    let said = scene.agent.take_over().err().map(|error| error.to_string());
    let said = said.unwrap_or_default();
    ensure!(
        said.contains("agent.traces.endpoint") && said.contains("http://HOST:PORT"),
        "{said}"
    );
    ensure!(scene.agent.status()?.traces.is_none());
    let _: Value = scene.agent.get("/v1/config")?;
    Ok(())
}
