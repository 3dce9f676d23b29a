//! HTTP/2 clients that make the server work for nothing: bounded, and nobody else notices.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::retry;
use serde_json::json;
use weir_tests::{
    agent::PATIENCE,
    memory::{forget_peak, peak, resident},
};

use crate::{
    http2::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, GET, HEADERS,
        PING, POST, PREFACE, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get,
    },
    scene::Scene,
};

/// Connections that flood at a time.
const CONNECTIONS: usize = 4;
/// How long one goes on, unless it is stopped.
const TIME: Duration = Duration::from_millis(1500);
/// Frames that are sent at once.
const BURST: u32 = 64;
/// Frames that are answered, and more than that, though a million are sent.
const MOST_ANSWERED: u64 = 3000;
/// Most memory that a flood may cost. Far less than is sent.
const MOST: u64 = 16 << 20;

/// What came of one connection's flood.
#[derive(Debug, Default)]
struct End {
    /// Weir closed it.
    closed: bool,
    /// Frames with which Weir answered.
    acks: u64,
    /// Why it said that it would close.
    reason: Option<u32>,
}

/// Reads until the connection is over.
fn answers(mut from: &TcpStream) -> End {
    let mut end = End::default();
    while let Ok(frame) = Frame::read(&mut from) {
        end.acks += u64::from(frame.flags & ACK != 0 && matches!(frame.kind, PING | SETTINGS));
        end.reason = frame.reason().or(end.reason);
    }
    end
}

/// Sends what `frames` makes of each number, as fast as it is taken; `reads`: takes the answers
/// meanwhile, and not after.
fn flood(scene: &Scene, reads: bool, frames: impl Fn(u32) -> Vec<u8>) -> Result<End> {
    let mut stream = scene.connect()?;
    let from = stream.try_clone()?;
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    stream.write_all(PREFACE)?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    let (began, mut number) = (Instant::now(), 0);
    std::thread::scope(|scope| {
        let reading = reads.then(|| scope.spawn(|| answers(&from)));
        let mut closed = false;
        while began.elapsed() < TIME && !closed {
            let burst: Vec<u8> = (number..number + BURST).flat_map(&frames).collect();
            number += BURST;
            match stream.write_all(&burst) {
                Ok(()) => {}
                // Weir takes no more; what it has written may be in the way.
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => closed = true,
            }
        }
        // What was written last may have been too much: it is closed soon, or goes on.
        stream.set_read_timeout(Some(TIME))?;
        let read = match reading {
            Some(reading) => reading.join(),
            None => Ok(answers(&from)),
        };
        let end = read.ok().context("it panicked")?;
        let after = stream.read(&mut [0]).map_err(|error| error.kind());
        closed |= matches!(after, Ok(0) | Err(ErrorKind::ConnectionReset));
        Ok(End { closed, ..end })
    })
}

#[test]
fn floods_of_frames_are_bounded() -> Result<()> {
    let mut scene = Scene::new(1, &json!({}), &json!({}))?;
    let agent = scene.agent.process().id();
    let load = scene.honest(4)?;
    let reset = |number: u32| {
        let stream = 2 * number + 1;
        let asks = frame(HEADERS, END_HEADERS | END_STREAM, stream, GET);
        [asks, frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
    };
    // A header with a name and a value, each a letter, over and over.
    let endless = |number: u32| match number {
        0 => frame(HEADERS, END_STREAM, 1, GET),
        _ => frame(CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'y'].repeat(100)),
    };
    let ping = |_| frame(PING, 0, 0, &[7; 8]);
    // SETTINGS_INITIAL_WINDOW_SIZE: each changes every stream.
    let settings = |number: u32| {
        let size = (1000 + number % 1000).to_be_bytes();
        frame(SETTINGS, 0, 0, &[&[0, 4], &size[..]].concat())
    };
    let priority = |number: u32| frame(PRIORITY, 0, 2 * number + 3, &[0, 0, 0, 1, 0]);
    let window = |_| frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes());
    let unknown = |number: u32| frame(0xfa, 0, number, &[0; 3]);
    let empty = |number: u32| match number {
        0 => frame(HEADERS, END_HEADERS, 1, POST),
        _ => frame(DATA, 0, 1, &[]),
    };
    type Frames<'a> = &'a (dyn Fn(u32) -> Vec<u8> + Sync);
    // Whether the answers are taken.
    let floods: [(&str, Frames<'_>, bool); 11] = [
        ("rapid reset", &reset, false),
        ("rapid reset with its answers", &reset, true),
        ("CONTINUATION", &endless, false),
        ("PING", &ping, false),
        ("PING with its answers", &ping, true),
        ("SETTINGS", &settings, false),
        ("SETTINGS with its answers", &settings, true),
        ("PRIORITY", &priority, true),
        ("WINDOW_UPDATE", &window, true),
        ("unknown frames", &unknown, true),
        ("empty DATA", &empty, true),
    ];
    let mut counted = 0;
    for (name, frames, reads) in floods {
        let (before, answered) = (resident(agent)?, load.results().requests);
        let served = scene.served();
        forget_peak(agent)?;
        let ends = std::thread::scope(|scope| {
            let floods = (0..CONNECTIONS).map(|_| scope.spawn(|| flood(&scene, reads, frames)));
            let floods: Vec<_> = floods.collect();
            let ends = floods
                .into_iter()
                .map(|one| one.join().ok().context("it panicked")?);
            ends.collect::<Result<Vec<_>>>()
        })?;
        let grown = peak(agent)?.saturating_sub(before);
        let honest = load.results().requests - answered;
        let reached = (scene.served() - served).saturating_sub(honest);
        println!("{name}: {ends:?}, {grown} bytes more, {honest} honest, {reached} reached it");
        ensure!(grown < MOST, "{name}: {grown} bytes");
        // Others are served while it goes on, or after it ended.
        retry(PATIENCE, || {
            let more = load.results().requests - answered;
            ensure!(more > 50, "{name}: {more} honest requests");
            Ok(())
        })?;
        // Few of those that were taken back had gone on.
        ensure!(reached < 2000, "{name}: {reached} requests went on");
        ensure!(
            ends.iter().all(|end| end.closed),
            "{name} goes on: {ends:?}"
        );
        // What a connection may send at first, at each time, and in what is read at once.
        let acks = ends.iter().map(|end| end.acks).max();
        ensure!(acks < Some(MOST_ANSWERED), "{name}: {ends:?}");
        // A reset may overtake it.
        let told = ends
            .iter()
            .filter(|end| end.reason == Some(ENHANCE_YOUR_CALM))
            .count();
        ensure!(told > 0, "{name}: {ends:?}");
        counted += told as u64;
    }
    let floods = scene.service()?.http.unwrap_or_default().floods;
    ensure!(floods >= counted, "{floods} were counted, {counted} told");
    let metric = "weir_http_floods_total{service=\"web\"}";
    ensure!(scene.agent.metric(metric)? == floods);
    let results = load.stop();
    ensure!(results.failed == 0, "{results:?}");
    let http = scene.service()?.http.unwrap_or_default();
    ensure!(http.requests_in_flight == 0, "{http:?}");
    Ok(())
}

/// Clients whose frames are mostly none that ask for anything, and who ask.
#[test]
fn honest_clients_are_no_flood() -> Result<()> {
    let scene = Scene::new(1, &json!({}), &json!({}))?;
    // One that tells of every frame that it has read, for the stream and the connection, and asks
    // whether the server is there.
    let mut stream = scene.connect()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(PREFACE)?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    let asks = get("/stream/64");
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &asks))?;
    let (mut bytes, mut said) = (0, 0);
    while bytes < 64 << 20 {
        let came = Frame::read(&mut stream).context("the answer")?;
        ensure!(came.reason().is_none(), "GOAWAY {:?}", came.reason());
        let length = came.payload.len() as u32;
        if came.kind == DATA && length > 0 {
            bytes += length;
            let more = length.to_be_bytes();
            let windows = [0, 1].map(|stream| frame(WINDOW_UPDATE, 0, stream, &more));
            stream.write_all(&[&windows.concat()[..], &frame(PING, 0, 0, &[7; 8])].concat())?;
            said += 3;
        }
    }
    ensure!(said > 10_000, "{said} frames are no trial");
    // Many large answers at a time, with the smallest window.
    let mut load = scene.lab.client().command("h2load");
    load.args(["-n500", "-c2", "-m20", "-w14", "-W14"]);
    let output = load.arg(scene.url("/bytes/1048576")).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        text.contains("500 succeeded, 0 failed, 0 errored"),
        "{text}"
    );
    let floods = scene.service()?.http.unwrap_or_default().floods;
    ensure!(floods == 0, "{floods} of them were taken for floods");
    Ok(())
}
