//! The same answers to Weir's client and to hyper's: both must make the same of them.

use std::{net::SocketAddr, sync::Arc};

use http::{
    HeaderMap, Method, Request,
    header::{CONTENT_LENGTH, HOST},
};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use lb_common::hash::HashKey;
use proptest::{prelude::*, sample::Index};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::proxy::{
    backend::Backend,
    h1::messages::{cut, message, or_not_quite},
    headers::connection::strip_response,
    sticky::SessionKey,
};

/// What a client made of an answer. None: of its head nothing; of its body no end.
#[derive(Debug, PartialEq)]
struct Made {
    status: u16,
    headers: HeaderMap,
    body: Option<(Vec<u8>, Option<HeaderMap>)>,
}

/// A backend that answers every connection's request with these pieces, and closes.
async fn backend(pieces: Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for _ in 0..2 {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                assert_ne!(tcp.read_buf(&mut asked).await.unwrap(), 0);
            }
            for piece in &pieces {
                // Who has found nonsense has closed.
                let _ = tcp.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            let _ = tcp.shutdown().await;
            let _ = tcp.read(&mut [0]).await;
        }
    });
    address
}

async fn weir(address: SocketAddr, method: Method) -> (Option<Made>, bool) {
    let token = SessionKey::new(HashKey([1, 2])).token("pool", "name");
    let backend = Backend::new("pool", "name", address, 1, token);
    let held = Held::connection(&Arc::new(backend));
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut h1 = H1::new(Stream::Plain(tcp), held, &Desk::default());
    let mut asked = RequestHead {
        method,
        uri: "/".parse().unwrap(),
        headers: HeaderMap::new(),
        told: None,
    };
    asked.headers.insert(HOST, "a".parse().unwrap());
    let answer = h1
        .exchange(&asked, RequestBody::Empty, |_| Poll::Pending)
        .await;
    let Ok(mut answer) = answer else {
        return (None, false);
    };
    let exact = h1.size_hint().exact();
    let mut body = Some((Vec::new(), None));
    while let Some(frame) = poll_fn(|cx| h1.poll_body(cx)).await {
        match (frame.map(Frame::into_data), &mut body) {
            (Ok(Ok(data)), Some((bytes, _))) => bytes.extend_from_slice(&data),
            (Ok(Err(frame)), Some((_, trailers))) => *trailers = frame.into_trailers().ok(),
            _ => {
                body = None;
                break;
            }
        }
    }
    if let (Some(exact), Some((bytes, _))) = (exact, &body) {
        assert_eq!(exact, bytes.len() as u64);
    }
    assert!(body.is_none() || h1.is_end_stream());
    let made = Made {
        status: answer.status.as_u16(),
        headers: std::mem::take(answer.headers()),
        body,
    };
    (Some(made), h1.is_free())
}

async fn hyper(address: SocketAddr, method: Method) -> Option<Made> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await;
    let (mut send, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri("/").header(HOST, "a");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let (parts, body) = send.send_request(request).await.ok()?.into_parts();
    let body = body.collect().await.ok();
    Some(Made {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.map(|body| {
            let trailers = body.trailers().cloned();
            (body.to_bytes().to_vec(), trailers)
        }),
    })
}

/// Asks both.
fn both(pieces: Vec<Vec<u8>>, method: &Method) -> (Option<Made>, Option<Made>, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let address = backend(pieces).await;
        let (mut ours, free) = weir(address, method.clone()).await;
        let mut theirs = hyper(address, method.clone()).await;
        for made in [&mut ours, &mut theirs].into_iter().flatten() {
            without_framing(&mut made.headers);
        }
        (ours, theirs, free)
    })
}

/// Takes away what is of the hop, and what is told by the body.
fn without_framing(headers: &mut HeaderMap) {
    strip_response(headers);
    headers.remove(CONTENT_LENGTH);
}

/// Answers as they may be, good and bad, of parts that matter.
fn answers() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 204 No Content",
        "HTTP/1.1 304 Not Modified",
        "HTTP/1.1 503 So busy",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
        "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 404 Not Found",
        "HTTP/1.1 99 Low",
        "HTTP/1.1 1000 High",
        "HTTP/2 200 OK",
        "http/1.1 200 OK",
        "",
    ]);
    let header = prop::sample::select(vec![
        "Content-Length: 5",
        "Content-Length: 0",
        "content-length: 7",
        "Content-Length: +5",
        "Content-Length: 5x",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        "Transfer-Encoding: chunked",
        "transfer-encoding: gzip, Chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity",
        "Connection: close",
        "Connection: keep-alive",
        "Set-Cookie: a=b",
        "Set-Cookie: c=d; e",
        "X-Latin: \u{e9}",
        "X-Empty:",
        "X Bad: a",
        " folded",
        "X-Null: \0",
        "no colon",
    ]);
    let body = prop::sample::select(vec![
        "",
        "hello",
        "hello, and more",
        "5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "2\r\nhe\r\n00003;x=\"y\"\r\nllo\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        "5\r\nhello",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";a\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffff\r\nhello",
    ]);
    let whole = (line, prop::collection::vec(header, 0..4), body);
    let whole = whole.prop_map(|(line, headers, body)| message(line, &headers, body).into_bytes());
    or_not_quite(whole)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes, in whatever pieces.
    #[test]
    fn makes_of_an_answer_what_hyper_does(
        answer in answers(),
        cuts in prop::collection::vec(any::<Index>(), 0..4),
        head in prop::bool::weighted(0.1),
    ) {
        let method = if head { Method::HEAD } else { Method::GET };
        let (ours, theirs, free) = both(cut(&answer, &cuts), &method);
        prop_assert_eq!(&ours, &theirs, "{:?}", String::from_utf8_lossy(&answer));
        let whole = ours.is_some_and(|made| made.body.is_some());
        prop_assert!(whole || !free);
    }
}

/// Bodies larger than what is read at once, framed in each way.
#[test]
fn reads_large_bodies() {
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let mut chunks = Vec::new();
    for chunk in bytes.chunks(70_001) {
        chunks.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    for (header, body, keeps) in [
        ("Content-Length: 300000\r\n", &bytes, true),
        ("Transfer-Encoding: chunked\r\n", &chunks, true),
        ("", &bytes, false),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{header}\r\n");
        let whole = [head.as_bytes(), body].concat();
        let (ours, theirs, free) = both(vec![whole], &Method::GET);
        assert_eq!(ours.unwrap().body.unwrap().0, bytes, "{header}");
        assert_eq!(theirs.unwrap().body.unwrap().0, bytes, "{header}");
        assert_eq!(free, keeps, "{header}");
    }
}

/// A connection is kept where nothing on it is in doubt.
#[test]
fn keeps_what_may_serve_again() {
    for (keeps, answer) in [
        (true, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        (true, "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            true,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        (
            true,
            "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok",
        ),
        (false, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        (
            false,
            "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok",
        ),
        (false, "HTTP/1.1 200 OK\r\n\r\nok"),
        // What comes behind its end, and two lengths.
        (false, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!"),
        (
            false,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
    ] {
        let (ours, _, free) = both(vec![answer.into()], &Method::GET);
        assert!(ours.unwrap().body.is_some(), "{answer:?}");
        assert_eq!(free, keeps, "{answer:?}");
    }
}
