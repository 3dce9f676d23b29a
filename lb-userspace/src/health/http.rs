//! One HTTP request, and whether its response passes.

use std::{future::pending, net::SocketAddr, ops::RangeInclusive};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::{net::TcpStream, select};

use super::{failure::Failure, probe::Pass};

/// As much of a body as is searched, in bytes.
const BODY_LIMIT: usize = 64 << 10;

/// The request for `path`; `host` is without one the address.
pub(super) fn request(
    path: &str,
    host: Option<&str>,
    address: SocketAddr,
) -> Result<Request<Empty<Bytes>>, Failure> {
    let request = Request::get(path)
        .header(
            USER_AGENT,
            concat!("weir-health/", env!("CARGO_PKG_VERSION")),
        )
        .header(CONNECTION, "close");
    let request = match host {
        Some(host) => request.header(HOST, host),
        // Anew, to leave out the scope of a link-local address: it means nothing elsewhere.
        None => request.header(
            HOST,
            SocketAddr::new(address.ip(), address.port()).to_string(),
        ),
    };
    Ok(request.body(Empty::new())?)
}

/// Sends `request`, and reads of the response what it takes to decide.
pub(super) async fn exchange(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
    expected: &RangeInclusive<u16>,
    wanted: Option<&str>,
) -> Result<Pass, Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let verdict = async {
        let response = sender.send_request(request).await?;
        let actual = response.status().as_u16();
        if !expected.contains(&actual) {
            return Err(Failure::Status {
                actual,
                expected: expected.clone(),
            });
        }
        if let Some(wanted) = wanted {
            find(response, wanted).await?;
        }
        Ok(Pass::Status(actual))
    };
    // Moves the bytes. What ends it early reaches the verdict as an error of the response. An
    // orderly shutdown would leave no connection to reset, and a TIME_WAIT.
    let transport = async {
        let _ = connection.without_shutdown().await;
        pending().await
    };
    select! {
        biased;
        verdict = verdict => verdict,
        never = transport => never,
    }
}

async fn find(response: Response<Incoming>, wanted: &str) -> Result<(), Failure> {
    let missing = |cut| Failure::Body {
        wanted: wanted.into(),
        cut,
    };
    let mut body = response.into_body();
    let mut seen = Vec::new();
    let mut searched = 0;
    while memmem::find(&seen[searched..], wanted.as_bytes()).is_none() {
        if seen.len() == BODY_LIMIT {
            return Err(missing(true));
        }
        // What was found may have begun in the bytes that were searched.
        searched = seen.len().saturating_sub(wanted.len());
        let frame = body.frame().await.ok_or_else(|| missing(false))??;
        let data = frame.into_data().unwrap_or_default();
        seen.extend_from_slice(&data[..data.len().min(BODY_LIMIT - seen.len())]);
    }
    Ok(())
}
