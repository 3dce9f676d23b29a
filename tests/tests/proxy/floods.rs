//! HTTP/2 clients that make the server work for nothing: bounded, and nobody else notices.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::Shutdown,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::retry;
use serde_json::json;
use weir_tests::{
    agent::PATIENCE,
    memory::{forget_peak, peak, resident},
};

use crate::scene::Scene;

/// Connections that flood at a time.
const CONNECTIONS: usize = 4;
/// How long one goes on, unless it is stopped.
const TIME: Duration = Duration::from_millis(1500);
/// Frames that are sent at once.
const BURST: u32 = 64;
/// Most memory that a flood may cost. Far less than is sent.
const MOST: u64 = 16 << 20;

// Types and flags of frames (RFC 9113, section 6).
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET http://a/`, in HPACK.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a frame is small")
        .to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head, &stream.to_be_bytes()[..], payload].concat()
}

/// What came of one connection's flood.
#[derive(Debug)]
enum End {
    /// Weir closed it.
    Closed,
    /// Weir took no more.
    Blocked,
    /// It went on until the time was over.
    Over,
}

/// Sends what `frames` makes of each number, as fast as it is taken; `reads`: takes the answers too.
fn flood(scene: &Scene, reads: bool, frames: impl Fn(u32) -> Vec<u8>) -> Result<(u64, End)> {
    let mut stream = scene.connect()?;
    if reads {
        let mut answers = stream.try_clone()?;
        // It ends with the connection.
        std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
    }
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    let (began, mut sent, mut number) = (Instant::now(), 0, 0);
    while began.elapsed() < TIME {
        let burst: Vec<u8> = (number..number + BURST).flat_map(&frames).collect();
        number += BURST;
        match stream.write_all(&burst) {
            Ok(()) => sent += burst.len() as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Ok((sent, End::Blocked));
            }
            Err(_) => return Ok((sent, End::Closed)),
        }
    }
    if reads {
        stream.shutdown(Shutdown::Both)?;
        return Ok((sent, End::Over));
    }
    // What was written last may have been too much.
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut bytes = [0; 1 << 16];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return Ok((sent, End::Closed)),
            Ok(_) if began.elapsed() < TIME * 3 => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Ok((sent, End::Closed));
            }
            _ => return Ok((sent, End::Over)),
        }
    }
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
    type Frames<'a> = &'a (dyn Fn(u32) -> Vec<u8> + Sync);
    // Whether the answers are taken, and whether Weir has to close it.
    let floods: [(&str, Frames<'_>, bool, bool); 6] = [
        ("rapid reset", &reset, false, true),
        ("CONTINUATION", &endless, false, true),
        ("PING", &ping, false, false),
        ("PING with its answers", &ping, true, false),
        ("SETTINGS", &settings, false, false),
        ("SETTINGS with its answers", &settings, true, false),
    ];
    for (name, frames, reads, closes) in floods {
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
        let closed = ends.iter().all(|(_, end)| matches!(end, End::Closed));
        ensure!(closed || !closes, "{name} goes on: {ends:?}");
    }
    let results = load.stop();
    ensure!(results.failed == 0, "{results:?}");
    let http = scene.service()?.http.unwrap_or_default();
    ensure!(http.requests_in_flight == 0, "{http:?}");
    Ok(())
}
