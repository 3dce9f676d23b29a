//! HTTP/1.1 clients.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::sleep};

use super::{Tally, Work};

/// How long a client waits after a failure, so that a dead server is not asked without pause.
const PAUSE: Duration = Duration::from_millis(10);

/// One client, until there are no more requests to make.
pub(super) async fn client(work: Arc<Work>, tally: Arc<Tally>) {
    while tally.begin().is_some() {
        let mut retries = work.retries;
        while let Err((error, who)) = connection(&work, &tally).await {
            sleep(PAUSE).await;
            if retries == 0 {
                tally.failed(|| format!("{who}: {error:#}"));
                break;
            }
            retries -= 1;
            tally.retried();
        }
        work.rest().await;
    }
}

/// One connection, for a request that has begun and those after it. The error is that of the
/// last one, with the connection's addresses.
async fn connection(work: &Work, tally: &Tally) -> Result<(), (anyhow::Error, String)> {
    let mut who = format!("to {}", work.target);
    let result = async {
        let mut sender = work
            .within(async {
                let stream = TcpStream::connect(work.target).await.context("connect")?;
                stream.set_nodelay(true)?;
                who = format!("{} to {}", stream.local_addr()?, work.target);
                let (sender, connection) = handshake(TokioIo::new(stream)).await?;
                // Its error is also that of the request that is under way.
                tokio::spawn(connection);
                Ok(sender)
            })
            .await?;
        tally.answered(&work.within(get(&mut sender, work)).await?);
        for _ in 1..work.per_connection {
            if tally.begin().is_none() {
                break;
            }
            tally.answered(&work.within(get(&mut sender, work)).await?);
        }
        Ok(())
    }
    .await;
    result.map_err(|error| (error, who))
}

/// One request; the answer's body.
async fn get(sender: &mut SendRequest<Empty<Bytes>>, work: &Work) -> Result<String> {
    let request = Request::get("/")
        .header(HOST, work.target.to_string())
        .body(Empty::new())?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    ensure!(status == StatusCode::OK, "status {status}");
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).trim().to_owned())
}
