//! UDP clients.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str,
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};
use tokio::{net::UdpSocket, time::timeout};

use super::{Tally, Work};

/// One client, until there are no more requests to make.
pub(super) async fn client(work: Arc<Work>, tally: Arc<Tally>) {
    while let Some(number) = tally.begin() {
        if let Err(error) = source(number, &work, &tally).await {
            tally.failed(|| format!("to {}: {error:#}", work.target));
        }
        work.rest().await;
    }
}

/// One source port, for the request `first` and those after it, until one fails.
async fn source(first: u64, work: &Work, tally: &Tally) -> Result<()> {
    let any: IpAddr = match work.target {
        std::net::SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        std::net::SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(work.target).await?;
    let from = socket.local_addr()?;
    let exchange = async |number| {
        let answer = timeout(work.timeout, ask(&socket, number)).await;
        answer
            .unwrap_or_else(|_| Err(anyhow!("no answer within {:?}", work.timeout)))
            .with_context(|| format!("from {from}"))
    };
    tally.answered(&exchange(first).await?);
    for _ in 1..work.per_connection {
        let Some(number) = tally.begin() else {
            break;
        };
        tally.answered(&exchange(number).await?);
    }
    Ok(())
}

/// One request; the name of the backend that answered.
async fn ask(socket: &UdpSocket, number: u64) -> Result<String> {
    let number = number.to_string();
    socket.send(number.as_bytes()).await?;
    let mut answer = [0; 256];
    loop {
        let length = socket.recv(&mut answer).await?;
        let words = str::from_utf8(&answer[..length]).ok();
        // Others than the one that is waited for are late.
        if let Some((backend, echoed)) = words.and_then(|words| words.split_once(' '))
            && echoed == number
        {
            return Ok(backend.to_owned());
        }
    }
}
