//! HTTP checks: what is sent, and what passes.

use std::{sync::Arc, time::Duration};

use lb_userspace::health::{Health, Kind};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::sleep};

use crate::support::{Server, first_verdict, get, get_containing, gone, status, target};

const BODY_LIMIT: usize = 64 << 10;

async fn passes(server: &Server, kind: Kind) {
    assert_eq!(
        first_verdict(target(server.address, kind)).await,
        (Health::Healthy, "status 200".into())
    );
}

async fn fails(server: &Server, kind: Kind, reason: &str) {
    assert_eq!(
        first_verdict(target(server.address, kind)).await,
        (Health::Unhealthy, reason.into())
    );
}

async fn times_out(server: &Server, kind: Kind) {
    let mut target = target(server.address, kind);
    Arc::make_mut(&mut target.check).timeout = Duration::from_millis(200);
    assert_eq!(
        first_verdict(target).await,
        (
            Health::Unhealthy,
            "timed out after 200ms waiting for the response".into()
        )
    );
}

/// A response with `body`.
fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into()
}

/// Answers 200 with a body that never ends, until the client is gone.
async fn endless(mut stream: TcpStream, first: &'static str, rest: &'static [u8], pause: Duration) {
    let head = format!("HTTP/1.1 200 OK\r\n\r\n{first}");
    let mut sent = stream.write_all(head.as_bytes()).await;
    while sent.is_ok() {
        sleep(pause).await;
        sent = stream.write_all(rest).await;
    }
}

#[tokio::test]
async fn asks_as_http_1_1_wants_it() {
    for (listen, host) in [
        ("127.0.0.1:0", Some("shop.example")),
        ("127.0.0.1:0", None),
        ("[::1]:0", None),
    ] {
        let mut server = Server::on(listen, |_, mut stream| async move {
            let _ = stream.write_all(status(200).as_bytes()).await;
        })
        .await;
        let kind = Kind::Http {
            path: "/health?deep=1".into(),
            host: host.map(Into::into),
            status: 200..=200,
            body_contains: None,
        };
        passes(&server, kind).await;
        let request = server.request().await.to_lowercase();
        let mut lines = request.trim_end().split("\r\n");
        assert_eq!(lines.next(), Some("get /health?deep=1 http/1.1"));
        let mut headers: Vec<_> = lines.collect();
        headers.sort_unstable();
        // Displayed with brackets if it is IPv6.
        let host = host.map_or(server.address.to_string(), Into::into);
        let agent = concat!("user-agent: weir-health/", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            headers,
            ["connection: close", &format!("host: {host}"), agent]
        );
    }
}

#[tokio::test]
async fn a_path_that_cannot_be_sent_fails() {
    let server = Server::answering(vec![ok("")]).await;
    let kind = Kind::Http {
        path: "/a b".into(),
        host: None,
        status: 200..=299,
        body_contains: None,
    };
    fails(&server, kind, "request: invalid uri character").await;
}

#[tokio::test]
async fn statuses_pass_from_the_first_to_the_last() {
    for (answer, passes) in [(300, false), (301, true), (302, true), (303, false)] {
        let server = Server::answering(vec![status(answer).into()]).await;
        let kind = Kind::Http {
            path: "/".into(),
            host: None,
            status: 301..=302,
            body_contains: None,
        };
        let expected = if passes {
            (Health::Healthy, format!("status {answer}"))
        } else {
            let reason = format!("status {answer}, expected 301-302");
            (Health::Unhealthy, reason)
        };
        assert_eq!(first_verdict(target(server.address, kind)).await, expected);
    }
}

#[tokio::test]
async fn what_is_not_http_fails() {
    for (response, reason) in [
        ("", "response: connection closed before message completed"),
        (
            "HTTP/1.1 20",
            "response: connection closed before message completed",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-",
            "response: connection closed before message completed",
        ),
        (
            "220 mail ESMTP\r\n\r\n",
            "response: invalid HTTP version parsed",
        ),
        (
            "HTTP/1.1 two OK\r\n\r\n",
            "response: invalid HTTP status-code parsed",
        ),
    ] {
        let server = Server::answering(vec![response.into()]).await;
        fails(&server, get(), reason).await;
    }
}

#[tokio::test]
async fn a_head_without_end_fails() {
    let server = Server::on("127.0.0.1:0", |_, mut stream| async move {
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await;
        while sent.is_ok() {
            sent = stream.write_all(&[b'x'; 4096]).await;
        }
    })
    .await;
    fails(&server, get(), "response: message head is too large").await;
}

#[tokio::test]
async fn a_reset_fails() {
    let server = Server::on("127.0.0.1:0", |_, stream| async move {
        stream.set_zero_linger().unwrap();
    })
    .await;
    let reason = "response: connection error: connection reset by peer";
    fails(&server, get(), reason).await;
}

#[tokio::test]
async fn silence_times_out_wherever_it_begins() {
    for start in ["", "HTTP/1.1 200 OK\r\nContent-"] {
        times_out(&Server::stalling(start.as_bytes()).await, get()).await;
    }
    let start = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
    times_out(&Server::stalling(start).await, get_containing("whole")).await;
}

#[tokio::test]
async fn bytes_that_only_drip_time_out() {
    let server = Server::on("127.0.0.1:0", |_, stream| {
        endless(stream, "", b".", Duration::from_millis(1))
    })
    .await;
    times_out(&server, get_containing("ready")).await;
}

#[tokio::test]
async fn a_body_must_contain_what_is_wanted() {
    let server = Server::answering(vec![ok("I am ready.")]).await;
    passes(&server, get_containing("ready")).await;
    passes(&server, get_containing("I am ready.")).await;
    let reason = r#"body does not contain "Ready""#;
    fails(&server, get_containing("Ready"), reason).await;
}

#[tokio::test]
async fn half_a_body_fails() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec();
    let server = Server::answering(vec![half]).await;
    passes(&server, get()).await;
    passes(&server, get_containing("half")).await;
    let reason = "response: error reading a body from connection: \
                  end of file before message length reached";
    fails(&server, get_containing("whole"), reason).await;
}

#[tokio::test]
async fn finds_what_chunks_cut_in_pieces() {
    let server = Server::on("127.0.0.1:0", |_, mut stream| async move {
        stream.set_nodelay(true).unwrap();
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_string();
        let chunks =
            ["I am r", "e", "ady."].map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()));
        for piece in std::iter::once(head).chain(chunks) {
            if stream.write_all(piece.as_bytes()).await.is_err() {
                return;
            }
            // Lets the checker read a chunk at a time.
            sleep(Duration::from_millis(10)).await;
        }
        gone(&mut stream).await;
    })
    .await;
    passes(&server, get_containing("ready")).await;
}

#[tokio::test]
async fn reads_no_further_than_it_must() {
    let never = Duration::from_secs(3600);
    let silent = Server::on("127.0.0.1:0", move |_, stream| {
        endless(stream, "I am ready.", b"", never)
    })
    .await;
    passes(&silent, get()).await;
    passes(&silent, get_containing("ready")).await;

    let endless = Server::on("127.0.0.1:0", |_, stream| {
        endless(stream, "", &[b'.'; 4096], Duration::ZERO)
    })
    .await;
    passes(&endless, get()).await;
    let reason = r#"body does not contain "ready" in its first 64 KiB"#;
    fails(&endless, get_containing("ready"), reason).await;
}

#[tokio::test]
async fn searches_64_kib() {
    let body = |before: usize| ok(&format!("{:.<before$}ready and more", ""));
    let last = BODY_LIMIT - "ready".len();
    let server = Server::answering(vec![body(last)]).await;
    passes(&server, get_containing("ready")).await;
    let server = Server::answering(vec![body(last + 1)]).await;
    let reason = r#"body does not contain "ready" in its first 64 KiB"#;
    fails(&server, get_containing("ready"), reason).await;
}
