//! Clients of as many connections as can be: HTTP/1.0 without a library's share in the time.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Tally, Work};

/// One client, until there are no more requests to make.
pub(super) async fn client(work: Arc<Work>, tally: Arc<Tally>) {
    while tally.begin().is_some() {
        let mut who = format!("to {}", work.target);
        match work.within(connection(&work, &mut who)).await {
            Ok(backend) => tally.answered(&backend),
            Err(error) => tally.failed(|| format!("{who}: {error:#}")),
        }
        work.rest().await;
    }
}

/// A connection from its SYN to the server's FIN; who answered.
async fn connection(work: &Work, who: &mut String) -> Result<String> {
    let mut stream = TcpStream::connect(work.target).await.context("connect")?;
    *who = format!("{} to {}", stream.local_addr()?, work.target);
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::with_capacity(1024);
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
    ensure!(head.contains(" 200 "), "{head}");
    Ok(body.trim().to_owned())
}
