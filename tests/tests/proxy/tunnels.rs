//! Connections that become something else than HTTP.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(10);

/// A WebSocket that says everything back.
pub(crate) async fn websocket(scene: &Scene) -> Result<WebSocketStream<TcpStream>> {
    let tcp = scene.connect()?;
    tcp.set_nonblocking(true)?;
    let url = format!("ws://{}/websocket", scene.target());
    let tcp = TcpStream::from_std(tcp)?;
    Ok(timeout(PATIENCE, client_async(url, tcp)).await??.0)
}

#[test]
fn carries_websockets_through_changes_that_do_not_concern_them() -> Result<()> {
    let scene = Scene::new(2, &json!({}), &json!({}))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut socket = websocket(&scene).await?;
        let long = "x".repeat(1 << 20);
        for round in 0..3 {
            for said in ["hello", &long] {
                timeout(PATIENCE, socket.send(Message::text(said))).await??;
                let heard = timeout(PATIENCE, socket.next()).await?;
                let heard = heard.context("the tunnel closed")??.into_text()?;
                ensure!(heard.as_str() == said, "{} bytes came back", heard.len());
            }
            // The service itself changes, and its pool.
            let path = "/v1/pools/web/backends/be1/weight";
            scene
                .agent
                .change("PUT", path, &json!({ "weight": 10 + round }))?;
            let mut service = serde_json::to_value(scene.service()?.config)?;
            service["http"]["timeouts"] = json!({ "connect": format!("{}s", 5 + round) });
            scene.agent.change("PUT", "/v1/services/web", &service)?;
        }
        let http = scene.service()?.http.unwrap_or_default();
        ensure!(
            http.tunnels == 1 && http.requests_in_flight == 1,
            "{http:?}"
        );
        timeout(PATIENCE, socket.close(None)).await??;
        Ok(())
    })
}

/// What was not asked for, or may not be, is plain HTTP.
#[test]
fn upgrades_to_what_may_be_alone() -> Result<()> {
    let scene = Scene::new(1, &json!({}), &json!({}))?;
    for headers in ["Upgrade: smtp\r\nConnection: upgrade", "Upgrade: websocket"] {
        let request = format!("GET /head HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
        let answer = scene.raw(request.as_bytes(), Duration::from_secs(2))?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        ensure!(!answer.to_lowercase().contains("upgrade:"), "{answer}");
    }
    Ok(())
}
