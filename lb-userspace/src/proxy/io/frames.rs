//! Frames of HTTP/2 that ask for nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE and the like cost
//! a client nothing, and hyper takes and answers them for ever. Here they are counted against what
//! a client asks for and gets, as Envoy and nginx do. DATA, CONTINUATION and refused streams have
//! bounds of h2's own.

/// Frames that ask for nothing which a connection may send whatever else it does: at once, and
/// then in each tick of a tenth of a second. Keepalive and settings are far fewer, and so many
/// cost less than to open the connection did.
const FREE: u32 = 1000;
const EACH_TICK: u32 = 10;

/// How many more for each request: PRIORITY and WINDOW_UPDATE come with it, a RST_STREAM may end it.
const A_REQUEST: u32 = 16;

/// How many more for each DATA frame that the client gets, and for each KiB in it. Of what it has
/// read it may say so for the stream, for the connection and in pieces; gRPC sends PING, too.
const AN_ANSWER: u32 = 4;
const BYTES: u32 = 1024;

/// Bytes before the first frame of a client (RFC 9113, section 3.4).
const PREFACE: u32 = 24;

/// What a frame's head has after length and type: flags and stream (RFC 9113, section 4.1).
const REST_OF_HEAD: u32 = 5;

// Types of frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// Finds the frames in one direction's bytes, however they are cut.
#[derive(Default)]
struct Follower {
    /// Bytes until the next frame begins.
    skip: u32,
    /// Its length and type, as far as they have come.
    head: [u8; 4],
    come: usize,
}

impl Follower {
    /// Tells of each frame that begins in these bytes: its type, and how long its payload is.
    fn follow(&mut self, mut bytes: &[u8], mut each: impl FnMut(u8, u32)) {
        loop {
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= skipped as u32;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let wanted = &mut self.head[self.come..];
            let taken = bytes.len().min(wanted.len());
            wanted[..taken].copy_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            self.come += taken;
            if self.come < self.head.len() {
                return;
            }
            self.come = 0;
            let [high, middle, low, kind] = self.head;
            let length = u32::from_be_bytes([0, high, middle, low]);
            self.skip = REST_OF_HEAD + length;
            each(kind, length);
        }
    }
}

/// Weighs what a client sends against what it asks for and gets.
pub(crate) struct Frames {
    received: Follower,
    sent: Follower,
    /// Frames that it may still send.
    left: u32,
    /// Up to which tick [`EACH_TICK`] is in that.
    tick: u32,
    flood: bool,
}

impl Frames {
    /// Of a connection that begins at this tick.
    pub(crate) fn new(tick: u32) -> Self {
        Self {
            received: Follower {
                skip: PREFACE,
                ..Follower::default()
            },
            sent: Follower::default(),
            left: FREE,
            tick,
            flood: false,
        }
    }

    /// Bytes came from the client, at this tick.
    pub(crate) fn receive(&mut self, bytes: &[u8], now: u32) {
        let Self {
            received,
            left,
            tick,
            flood,
            ..
        } = self;
        received.follow(bytes, |kind, _| match kind {
            DATA | CONTINUATION => {}
            HEADERS => *left = left.saturating_add(A_REQUEST),
            _ => {
                if *left == 0 {
                    let since = now.saturating_sub(*tick);
                    *left = since.saturating_mul(EACH_TICK).min(FREE);
                    *tick = now;
                }
                match left.checked_sub(1) {
                    Some(fewer) => *left = fewer,
                    None => *flood = true,
                }
            }
        });
    }

    /// Bytes went to the client.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let left = &mut self.left;
        self.sent.follow(bytes, |kind, length| {
            if kind == DATA && length > 0 {
                *left = left.saturating_add(AN_ANSWER + length / BYTES);
            }
        });
    }

    /// Whether the client has sent more than it may.
    pub(crate) fn is_flood(&self) -> bool {
        self.flood
    }

    /// Whether what went to the client ends with a frame's end: another may follow.
    pub(crate) fn is_between(&self) -> bool {
        self.sent.skip == 0 && self.sent.come == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    const RST_STREAM: u8 = 3;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let [_, high, middle, low] = (length as u32).to_be_bytes();
        let mut frame = vec![high, middle, low, kind, 0, 0, 0, 0, 1];
        // Looks like heads of frames, and is none.
        frame.resize(9 + length, PING);
        frame
    }

    fn begun(tick: u32) -> Frames {
        let mut frames = Frames::new(tick);
        frames.receive(&[PING; PREFACE as usize], tick);
        frames
    }

    /// How many of such frames a client may send before it is one too many.
    fn until_flood(frames: &mut Frames, kind: u8, now: u32) -> u32 {
        let frame = frame(kind, 4);
        (0..)
            .find(|_| {
                frames.receive(&frame, now);
                frames.is_flood()
            })
            .expect("a flood")
    }

    #[test]
    fn frames_that_ask_for_nothing_are_bounded() {
        for kind in [2, RST_STREAM, 4, PING, 7, WINDOW_UPDATE, 0x10, 0xff] {
            assert_eq!(until_flood(&mut begun(7), kind, 7), FREE);
        }
    }

    #[test]
    fn a_few_at_all_times_are_none() {
        let mut frames = begun(0);
        let ping = frame(PING, 8).repeat(EACH_TICK as usize);
        for tick in 0..100_000 {
            frames.receive(&ping, tick);
        }
        assert!(!frames.is_flood());
        // However long it was silent, no more than at first.
        assert!(until_flood(&mut frames, PING, 1_000_000) <= 2 * FREE);
    }

    #[test]
    fn requests_and_answers_pay_for_them() {
        let mut frames = begun(0);
        (0..1000).for_each(|_| frames.receive(&frame(HEADERS, 20), 0));
        assert_eq!(
            until_flood(&mut frames, RST_STREAM, 0),
            FREE + 1000 * A_REQUEST
        );
        let mut frames = begun(0);
        // A client that tells of every KiB, for the stream and for the connection.
        for _ in 0..10_000 {
            frames.send(&frame(DATA, 2048));
            frames.receive(&frame(WINDOW_UPDATE, 4).repeat(4), 0);
            frames.send(&frame(DATA, 1));
            frames.receive(&frame(WINDOW_UPDATE, 4).repeat(2), 0);
            frames.receive(&frame(PING, 8), 0);
            frames.send(&frame(PING, 8));
        }
        assert!(!frames.is_flood());
    }

    #[test]
    fn what_pays_is_neither_the_clients_data_nor_an_empty_answer() {
        let mut frames = begun(0);
        frames.receive(&frame(DATA, 10_000), 0);
        frames.send(&frame(DATA, 0));
        frames.send(&frame(HEADERS, 10_000));
        assert_eq!(until_flood(&mut frames, PING, 0), FREE);
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_they_are_cut(
            frames in vec((any::<u8>(), 0..3000_usize), 0..40),
            cuts in vec(any::<Index>(), 0..60),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(kind, length)| frame(*kind, *length)).collect();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut follower = Follower::default();
            let (mut seen, mut begun) = (Vec::new(), 0);
            for end in cuts.into_iter().chain([bytes.len()]) {
                let piece = &bytes[begun..end];
                follower.follow(piece, |kind, length| seen.push((kind, length as usize)));
                begun = end;
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(follower.skip == 0 && follower.come == 0);
        }

        #[test]
        fn a_frame_that_is_not_at_its_end_is_seen(length in 0..300_usize, missing in 1..309_usize) {
            let frame = frame(DATA, length);
            prop_assume!(missing < frame.len());
            let mut frames = Frames::new(0);
            frames.send(&frame[..frame.len() - missing]);
            prop_assert!(!frames.is_between());
            frames.send(&frame[frame.len() - missing..]);
            prop_assert!(frames.is_between());
        }
    }
}
