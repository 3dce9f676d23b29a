//! The same requests to Weir's server half and to hyper's, and the same answers from both: they
//! must make the same of them, but for requests with two meanings, which Weir refuses.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex},
    task::Waker,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header::DATE};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use proptest::{prelude::*, sample::Index};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::{
    config::http::Limits,
    proxy::{
        date::Date,
        h1::{
            Lines, Sink,
            messages::{cut, message, or_not_quite},
        },
        request::BodyError,
        timers::Timers,
    },
};

/// What is made of a request. A body of None has no end.
#[derive(Debug, PartialEq)]
struct Made {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    body: Option<(Vec<u8>, Option<HeaderMap>)>,
}

/// What comes after the last request.
#[derive(Debug, PartialEq)]
enum Last {
    /// Nothing, or less than a head.
    Nothing,
    /// What is no request.
    Refused(u16),
    /// A request that has two meanings, or a coding that is not understood.
    Ambiguous,
}

fn ours(pieces: &[Vec<u8>]) -> (Vec<Made>, Last) {
    let mut made: Vec<Made> = Vec::new();
    let mut pieces = pieces.iter();
    let mut read = Bytes::new();
    let mut more = |read: &mut Bytes| match pieces.next() {
        Some(piece) => {
            *read = [&**read, piece].concat().into();
            true
        }
        None => false,
    };
    loop {
        let mut seen = Seen::default();
        let head = loop {
            match head::take(&mut read, &mut seen, &Limits::default()) {
                Ok(Some(head)) => break head,
                Ok(None) if more(&mut read) => {}
                Ok(None) => return (made, Last::Nothing),
                Err(refusal) => return (made, Last::Refused(refusal.status().as_u16())),
            }
        };
        let Ok(mut framed) = head.body else {
            return (made, Last::Ambiguous);
        };
        let mut body = Some((Vec::new(), None));
        while !framed.has_ended() {
            match framed.take(&mut read) {
                Ok(Some(frame)) => match (frame.into_data(), &mut body) {
                    (Ok(data), Some((bytes, _))) => bytes.extend_from_slice(&data),
                    (Err(frame), Some((_, trailers))) => *trailers = frame.into_trailers().ok(),
                    _ => {}
                },
                Ok(None) if framed.has_ended() || more(&mut read) => {}
                Ok(None) | Err(_) => {
                    body = None;
                    break;
                }
            }
        }
        let whole = body.is_some();
        made.push(Made {
            method: head.method,
            uri: head.uri,
            version: head.version,
            headers: head.headers,
            body,
        });
        if !head.keeps || !whole {
            return (made, Last::Nothing);
        }
    }
}

fn run<F: Future>(future: F) -> F::Output {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.build().unwrap().block_on(future)
}

/// Sends pieces, each when the one before was read, and reads all that comes back.
async fn converse(mut client: DuplexStream, pieces: &[Vec<u8>]) -> Vec<u8> {
    for piece in pieces {
        // Who has found nonsense has closed.
        let _ = client.write_all(piece).await;
        tokio::task::yield_now().await;
    }
    let _ = client.shutdown().await;
    let mut answers = Vec::new();
    let _ = client.read_to_end(&mut answers).await;
    answers
}

fn hyper(pieces: &[Vec<u8>]) -> (Vec<Made>, Option<u16>) {
    let made = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let made = made.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.ok();
            made.lock().unwrap().push(Made {
                method: parts.method,
                uri: parts.uri,
                version: parts.version,
                headers: parts.headers,
                body: body.map(|body| {
                    let trailers = body.trailers().cloned();
                    (body.to_bytes().to_vec(), trailers)
                }),
            });
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let (client, server) = duplex(1 << 20);
    let serve = http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(server), service);
    let (_, answers) = run(async { tokio::join!(serve, converse(client, pieces)) });
    let answers = String::from_utf8_lossy(&answers);
    // The service's answers are all 200.
    let refused = (answers.lines())
        .filter_map(|line| line.strip_prefix("HTTP/1.")?.get(2..))
        .find(|line| !line.starts_with("200"));
    let made = std::mem::take(&mut *made.lock().unwrap());
    (made, refused.map(|line| line[..3].parse().unwrap()))
}

/// Requests as they may be, good and bad, of parts that matter.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "GET / HTTP/1.1",
        "POST /a?b=c HTTP/1.1",
        "POST / HTTP/1.0",
        "HEAD http://a/b HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "M-SEARCH / HTTP/1.1",
        "\r\nGET / HTTP/1.1",
        "\n\nGET / HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET / HTTP/2.0",
        "GET /",
        " GET / HTTP/1.1",
        "G@T / HTTP/1.1",
        "",
    ]);
    let header = prop::sample::select(vec![
        "Host: a",
        "Content-Length: 5",
        "Content-Length: 0",
        "content-length: 7",
        "Content-Length: +5",
        "Content-Length: 5, 5",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        "Transfer-Encoding: chunked",
        "transfer-encoding: Chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity",
        "Connection: close",
        "Connection: keep-alive",
        "TE: trailers",
        "Cookie: a=b",
        "Cookie: c=d; e",
        "X-Latin: \u{e9}",
        "X-Empty:",
        "X Bad: a",
        " folded",
        "X-Null: \0",
        "no colon",
    ]);
    let body = prop::sample::select(vec![
        "",
        "",
        "hello",
        "hello, and more",
        "5\r\nhello\r\n0\r\n\r\n",
        "2\r\nhe\r\n00003;x=\"y\"\r\nllo\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
    ]);
    let one = (line, prop::collection::vec(header, 0..4), body);
    let one = one.prop_map(|(line, headers, body)| message(line, &headers, body));
    let all = prop::collection::vec(one, 1..4).prop_map(|all| all.concat().into_bytes());
    or_not_quite(all).prop_map(|mut all| {
        // What has no end may be refused or not, as the pieces come.
        all.extend_from_slice(b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n");
        all
    })
}

/// A body of these frames.
struct Frames {
    frames: VecDeque<Frame<Bytes>>,
    length: Option<u64>,
}

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.frames.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An answer that can be made several times.
#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    pieces: Vec<&'static str>,
    trailers: bool,
    known: bool,
}

impl Answer {
    fn response(&self) -> Response<Frames> {
        let mut frames: VecDeque<_> = (self.pieces.iter())
            .map(|piece| Frame::data(Bytes::from_static(piece.as_bytes())))
            .collect();
        let length = self.pieces.iter().map(|piece| piece.len() as u64).sum();
        if self.trailers && !self.known {
            let sum = HeaderMap::from_iter([
                (
                    HeaderName::from_static("x-sum"),
                    HeaderValue::from_static("1"),
                ),
                (
                    HeaderName::from_static("x-not"),
                    HeaderValue::from_static("2"),
                ),
            ]);
            frames.push_back(Frame::trailers(sum));
        }
        let mut response = Response::new(Frames {
            length: (self.known || frames.is_empty()).then_some(length),
            frames,
        });
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap();
        for (name, value) in &self.headers {
            response
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        response
    }
}

impl Answer {
    /// Its headers as they could have been read.
    fn lines(&self) -> Lines {
        let lines = self.headers.iter();
        let lines: String = lines
            .map(|(name, value)| format!("{name}:{value} \n"))
            .collect();
        let head = Bytes::from(format!("{lines}\r\n"));
        let mut parsed = [httparse::EMPTY_HEADER; 8];
        match httparse::parse_headers(&head, &mut parsed) {
            Ok(httparse::Status::Complete((_, parsed))) => Lines::new(head.clone(), parsed),
            other => panic!("{other:?}"),
        }
    }
}

/// Takes everything, a few bytes at a time.
#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    /// How many there are when what was said to be the last is among them.
    end: Option<usize>,
}

impl Sink for Taken {
    fn poll_write(
        &mut self,
        _: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
        last: bool,
    ) -> Poll<io::Result<usize>> {
        let all = pieces.iter().map(|piece| &**piece).collect::<Vec<_>>();
        let all = all.concat();
        let end = last.then_some(self.bytes.len() + all.len());
        assert!(self.end.is_none() || self.end == end, "more than the last");
        self.end = end;
        let some = &all[..all.len().min(7)];
        self.bytes.extend_from_slice(some);
        Poll::Ready(Ok(some.len()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The lines of a head, without the date and what version it is, in order; and the rest.
fn read(answer: &[u8]) -> (Vec<String>, String) {
    let answer = String::from_utf8_lossy(answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<String> = head
        .replace("HTTP/1.0", "HTTP/1.1")
        .split("\r\n")
        .filter(|line| !line.starts_with("date: "))
        .map(str::to_owned)
        .collect();
    assert_eq!(lines.len() + 1, head.split("\r\n").count(), "no date");
    lines.sort();
    (lines, body.to_owned())
}

fn answers() -> impl Strategy<Value = Answer> {
    let status = prop::sample::select(vec![200, 200, 200, 201, 204, 301, 304, 404, 503]);
    let header = prop::sample::select(vec![
        ("content-type", "text/plain"),
        ("set-cookie", "a=b"),
        ("set-cookie", "c=d"),
        ("trailer", "X-Sum"),
        ("connection", "close"),
    ]);
    let pieces = prop::sample::select(vec![vec![], vec!["hello"], vec!["hello", " and", " more"]]);
    (
        status,
        prop::collection::btree_set(header, 0..4),
        pieces,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(status, headers, pieces, trailers, known)| Answer {
            status,
            headers: headers.into_iter().collect(),
            pieces,
            trailers,
            known,
        })
}

#[test]
fn trailers_lines_have_no_other_ends_than_chunks_have() {
    let body = |trailers: &str| {
        let text = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}");
        let pieces = [text.into_bytes()];
        ours(&pieces).0.remove(0).body
    };
    assert!(body("X: 1\r\nY: 2\r\n\r\n").is_some());
    for bare in ["X: 1\nY: 2\r\n\r\n", "X: 1\r\nY: 2\n\r\n", "X: 1\r\n\n"] {
        assert_eq!(body(bare), None, "{bare:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes, in whatever pieces.
    #[test]
    fn makes_of_requests_what_hyper_does(
        text in requests(),
        cuts in prop::collection::vec(any::<Index>(), 0..4),
    ) {
        let pieces = cut(&text, &cuts);
        let text = String::from_utf8_lossy(&text);
        // Behind trailers of which one ends so, hyper may take a request for more of them.
        let trailers = text.split_once("\r\n0\r\n").map_or("", |(_, trailers)| trailers);
        if trailers.replace("\r\n", "").contains('\n') {
            return Ok(());
        }
        let (ours, last) = ours(&pieces);
        let (mut theirs, refused) = hyper(&pieces);
        match &last {
            Last::Nothing => prop_assert_eq!(refused, None, "{:?}", text),
            Last::Refused(status) => prop_assert_eq!(refused, Some(*status), "{:?}", text),
            // hyper may see a request there.
            Last::Ambiguous => theirs.truncate(ours.len()),
        }
        prop_assert_eq!(&ours, &theirs, "{:?} {:?}", text, last);
    }

    /// Answers of every kind, to clients of every kind.
    #[test]
    fn writes_answers_as_hyper_does(
        sent in answers(),
        head in any::<bool>(),
        old in any::<bool>(),
        close in any::<bool>(),
        trailers in any::<bool>(),
        lined in any::<bool>(),
    ) {
        let mut sent = sent;
        if lined {
            // Which is never among lines.
            sent.headers.retain(|(name, _)| *name != "connection");
        }
        let asked = Asked { bodiless: head, old, keeps: !close, trailers };
        let mut response = sent.response();
        let lines = lined.then(|| {
            response.headers_mut().clear();
            sent.lines()
        });
        let (mut outgoing, keeps) =
            answer(response, lines.as_ref(), asked, &Date::new(&Timers::new()));
        let mut taken = Taken::default();
        let cx = &mut Context::from_waker(Waker::noop());
        prop_assert!(matches!(outgoing.poll(&mut taken, cx), Poll::Ready(Ok(()))));

        let request = format!(
            "{} / HTTP/1.{}\r\n{}{}\r\n",
            if head { "HEAD" } else { "GET" },
            if old { 0 } else { 1 },
            if close { "Connection: close\r\n" } else { "Connection: keep-alive\r\n" },
            if trailers { "TE: trailers\r\n" } else { "" },
        );
        let (client, server) = duplex(1 << 20);
        let service = service_fn(|_: Request<Incoming>| async { Ok::<_, Infallible>(sent.response()) });
        let serve = http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(server), service);
        let pieces = [request.into_bytes()];
        let (_, theirs) = run(async { tokio::join!(serve, converse(client, &pieces)) });
        let (mut ours, mut theirs) = (read(&taken.bytes), read(&theirs));
        let closes = ours.0.iter().any(|line| line == "connection: close");
        prop_assert_eq!(keeps, !closes);
        prop_assert_eq!(taken.end, closes.then_some(taken.bytes.len()));
        if old {
            // hyper leaves out what goes without saying, or says that it both closes and does not.
            ours.0.retain(|line| !line.starts_with("connection: "));
            theirs.0.retain(|line| !line.starts_with("connection: "));
        }
        prop_assert_eq!(&ours, &theirs);
    }
}

/// The length that is not sent, but told of.
#[test]
fn tells_how_long_a_body_would_be() {
    for (status, head, told) in [(200, true, true), (304, false, true), (204, false, false)] {
        let mut response = Response::new(Empty::new().map_err(|never| match never {}));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert("content-length", 5.into());
        let asked = Asked {
            bodiless: head,
            ..Asked::NONSENSE
        };
        let (mut outgoing, _) = answer(response, None, asked, &Date::new(&Timers::new()));
        let mut taken = Taken::default();
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(outgoing.poll(&mut taken, cx).is_ready());
        let (lines, body) = read(&taken.bytes);
        let has = lines.iter().any(|line| line == "content-length: 5");
        assert_eq!((has, &*body), (told, ""), "{status}");
    }
}

/// A backend's date stays.
#[test]
fn keeps_a_date() {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}));
    response
        .headers_mut()
        .insert(DATE, HeaderValue::from_static("then"));
    let (mut outgoing, _) = answer(response, None, Asked::NONSENSE, &Date::new(&Timers::new()));
    let mut taken = Taken::default();
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(outgoing.poll(&mut taken, cx).is_ready());
    let text = String::from_utf8(taken.bytes).unwrap();
    assert_eq!(text.matches("date: ").count(), 1);
    assert!(text.contains("date: then\r\n"));
}

/// A head that comes byte by byte is looked at for its end alone, and has a largest size.
#[test]
fn reads_a_head_byte_by_byte() {
    let text = "\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    for end in ["\r\n\r\n", "\n\n", "\n\r\n"] {
        let text = text.replace("\r\n\r\n", end);
        let pieces: Vec<Vec<u8>> = text.bytes().map(|byte| vec![byte]).collect();
        let (made, last) = ours(&pieces);
        assert_eq!((made.len(), last), (1, Last::Nothing), "{end:?}");
    }
    let large = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(40 * 1024));
    let pieces: Vec<Vec<u8>> = large.as_bytes().chunks(100).map(<[u8]>::to_vec).collect();
    assert_eq!(ours(&pieces).1, Last::Refused(431));
}
