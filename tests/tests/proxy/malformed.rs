//! Requests that are not what they should be, at the level of the socket: the answer that each
//! must get, and that the backend hears nothing of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::scene::Scene;

/// The connection closes long before.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is refused before a backend is asked, by status.
const REFUSED: &[(u16, &str)] = &[
    // Two lengths, in every order and guise.
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:\tchunked\r\nCONTENT-LENGTH:5\r\n\r\n0\r\n\r\n",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    ),
    // Lengths that are none.
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\nhello",
    ),
    // Codings that are not chunked, or not only.
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\nhello",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    (
        501,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        501,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        400,
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    // Lines that two parsers could see differently.
    (
        400,
        "GET / HTTP/1.1\r\nHost: a\r\nX-Folded: one\r\n two\r\n\r\n",
    ),
    (
        400,
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
    ),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n X: y\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX: one\rtwo\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX: one\0two\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX\0: one\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n: one\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n"),
    // Request lines that are none.
    (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    (400, "GET / http/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
    (400, "GET /\r\n\r\n"),
    (400, "G@T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n"),
    // Hosts that are none, or more than one; and headers that are to be taken from the backend.
    (400, "GET / HTTP/1.1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (400, "GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        400,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Host\r\n\r\n",
    ),
    (
        400,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For\r\n\r\n",
    ),
    // What a proxy for the world would do.
    (
        405,
        "CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: 192.0.2.1:443\r\n\r\n",
    ),
];

#[test]
fn refuses_what_two_parsers_could_read_differently() -> Result<()> {
    let scene = Scene::new(1, &json!({}), &json!({}))?;
    for (status, request) in REFUSED {
        let answer = scene.raw(request.as_bytes(), PATIENCE)?;
        ensure!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?}: wanted {status}, got {answer:?}"
        );
        // One answer, and the connection is closed: nothing behind it was taken for a request.
        ensure!(
            answer.matches("HTTP/1.1 ").count() == 1,
            "{request:?}: {answer:?}"
        );
        let closes = answer.to_lowercase().contains("connection: close");
        ensure!(closes, "{request:?}: {answer:?}");
    }
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = "x".repeat(70_000);
    for (status, request) in [
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
        (
            431,
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
        ),
    ] {
        let answer = scene.raw(request.as_bytes(), PATIENCE)?;
        ensure!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer:?}"
        );
    }
    let web = &scene.webs[0];
    ensure!(web.connections() == 0, "the backend was spoken to");
    ensure!(scene.service()?.counters.drops.is_empty());
    Ok(())
}

/// Bodies that turn out to be none when their beginning is at the backend already: it gets no
/// request that has an end, and the client a 400.
#[test]
fn never_finishes_what_the_client_did_not() -> Result<()> {
    let scene = Scene::new(1, &json!({}), &json!({}))?;
    for body in [
        "5\r\nhello\r\nzz\r\n\r\n",
        "5\r\nhelloX0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
    ] {
        let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = scene.raw(&[head, body].concat().into_bytes(), PATIENCE)?;
        // `/echo` may have begun to answer: then it has no end.
        let refused = answer.starts_with("HTTP/1.1 400 ");
        ensure!(
            refused || !answer.contains("\r\n0\r\n"),
            "{body:?}: {answer:?}"
        );
        ensure!(
            answer.matches("HTTP/1.1 ").count() <= 1,
            "{body:?}: {answer:?}"
        );
    }
    Ok(())
}

/// Requests in a row on one connection are each answered, whatever their lengths.
#[test]
fn tells_pipelined_requests_apart() -> Result<()> {
    let scene = Scene::new(1, &json!({}), &json!({}))?;
    let text = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none\
                POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n\
                GET /name HTTP/1.1\r\nHost: a\r\n\r\n\
                POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nthree";
    let answer = scene.raw(text.as_bytes(), PATIENCE)?;
    ensure!(answer.matches("HTTP/1.1 200 ").count() == 4, "{answer}");
    let order = ["one", "two", "be1", "three"].map(|word| answer.find(word));
    ensure!(
        order.is_sorted() && order[0].is_some(),
        "{order:?} {answer}"
    );
    Ok(())
}
