//! gRPC through the proxy: HTTP/2 on both sides, streams and trailers.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::channel::mpsc;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tonic::{
    Code,
    transport::{Endpoint, Server, server::TcpIncoming},
};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::health_reporter,
};

use tonic_reflection::{
    self as reflection,
    pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    },
};

use crate::scene::Scene;

const PORT: u16 = 50051;
/// More than a connection may send of frames that ask for nothing.
const MESSAGES: u32 = 1500;
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn carries_calls_streams_and_their_status() -> Result<()> {
    let scene = Scene::new(1, &json!({}), &json!({ "http": { "version": "2" } }))?;
    let listener = scene.listen_as("be1", PORT)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (reporter, health) = health_reporter();
        reporter
            .set_service_status("weir", ServingStatus::Serving)
            .await;
        let incoming = TcpIncoming::from(TcpListener::from_std(listener)?);
        let reflection = reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let server = Server::builder()
            .add_service(health)
            .add_service(reflection);
        tokio::spawn(server.serve_with_incoming(incoming));

        let tcp = scene.connect()?;
        tcp.set_nonblocking(true)?;
        let mut tcp = Some(TokioIo::new(TcpStream::from_std(tcp)?));
        let connector = tower::service_fn(move |_| {
            let tcp = tcp.take().ok_or(std::io::ErrorKind::NotConnected);
            async move { tcp.map_err(std::io::Error::from) }
        });
        // One that asks by PING how wide the way is, and whether the server is there.
        let endpoint = Endpoint::from_static("http://weir.test")
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(Duration::from_millis(20));
        let channel = endpoint.connect_with_connector(connector);
        let channel = timeout(PATIENCE, channel).await??;
        let mut client = HealthClient::new(channel.clone());
        let request = |service: &str| HealthCheckRequest {
            service: service.to_owned(),
        };
        // A call, and one whose status is all that comes back: trailers without a body.
        let answer = timeout(PATIENCE, client.check(request("weir"))).await??;
        ensure!(answer.into_inner().status == ServingStatus::Serving as i32);
        let error = timeout(PATIENCE, client.check(request("nobody"))).await?;
        let code = error.err().context("it is known")?.code();
        ensure!(code == Code::NotFound, "{code:?}");
        // A stream that goes on: each message comes when it is sent.
        let watch = timeout(PATIENCE, client.watch(request("weir"))).await??;
        let mut watch = watch.into_inner();
        let mut expected = ServingStatus::Serving;
        for next in [ServingStatus::NotServing, ServingStatus::Serving] {
            let message = timeout(PATIENCE, watch.message()).await??;
            let seen = message.context("the stream ended")?.status;
            ensure!(seen == expected as i32, "{seen}");
            reporter.set_service_status("weir", next).await;
            expected = next;
        }
        // Streams both ways at a time: what is asked next depends on what was answered.
        let (asks, asked) = mpsc::unbounded();
        let ask = |what: MessageRequest| {
            asks.unbounded_send(ServerReflectionRequest {
                host: String::new(),
                message_request: Some(what),
            })
        };
        ask(MessageRequest::ListServices(String::new()))?;
        let mut client = ServerReflectionClient::new(channel);
        let answers = timeout(PATIENCE, client.server_reflection_info(asked)).await??;
        let mut answers = answers.into_inner();
        let answer = timeout(PATIENCE, answers.message()).await??;
        let answer = answer.and_then(|answer| answer.message_response);
        let Some(MessageResponse::ListServicesResponse(services)) = answer else {
            bail!("no services: {answer:?}");
        };
        ensure!(!services.service.is_empty());
        for service in services.service {
            ask(MessageRequest::FileContainingSymbol(service.name.clone()))?;
            let answer = timeout(PATIENCE, answers.message()).await??;
            let answer = answer.and_then(|answer| answer.message_response);
            let described = matches!(answer, Some(MessageResponse::FileDescriptorResponse(_)));
            ensure!(described, "{}: {answer:?}", service.name);
        }
        // A long conversation of short messages is no flood.
        for number in 0..MESSAGES {
            ask(MessageRequest::ListServices(String::new()))?;
            let answer = timeout(PATIENCE, answers.message()).await??;
            let answer = answer.and_then(|answer| answer.message_response);
            let listed = matches!(answer, Some(MessageResponse::ListServicesResponse(_)));
            ensure!(listed, "{number}: {answer:?}");
        }
        let floods = scene.service()?.http.unwrap_or_default().floods;
        ensure!(floods == 0, "it was taken for a flood");
        asks.close_channel();
        let end = timeout(PATIENCE, answers.message()).await??;
        ensure!(end.is_none(), "{end:?}");
        Ok(())
    })
}
