//! Heads of HTTP/1 requests whose length could be read in two ways. hyper takes one of two
//! meanings that RFC 9112 allows; here such a request is found before that, to be refused.

use std::cell::{Cell, RefCell};

/// Bytes of a line that are looked at: enough for the names, and a length with some space.
const LOOKED_AT: usize = 64;

/// Follows the heads of one connection's requests. It never decides what a request is: only that
/// one is to be refused.
#[derive(Default)]
pub(crate) struct Guard {
    state: RefCell<State>,
    /// Heads that are at their end.
    heads: Cell<u32>,
    /// The first one that is ambiguous, counted from 1.
    ambiguous: Cell<u32>,
    /// A head is not at its end.
    inside: Cell<bool>,
    /// After a chunked request: where the next begins is not known here.
    lost: Cell<bool>,
}

#[derive(Default)]
struct State {
    /// Bytes of the body that are to come.
    skip: u64,
    /// The beginning of the line.
    line: Vec<u8>,
    /// Whether the line is longer than that.
    cut: bool,
    lengths: u32,
    encodings: u32,
    length: u64,
}

impl Guard {
    /// More bytes came from the client.
    pub(crate) fn feed(&self, mut bytes: &[u8]) {
        if self.lost.get() {
            return;
        }
        let state = &mut *self.state.borrow_mut();
        while !bytes.is_empty() && !self.lost.get() {
            if state.skip > 0 {
                let skipped = state.skip.min(bytes.len() as u64);
                state.skip -= skipped;
                bytes = &bytes[skipped as usize..];
                continue;
            }
            let end = memchr::memchr(b'\n', bytes);
            let (piece, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
            bytes = rest;
            match (end, state.line.is_empty() && !state.cut) {
                // The common case: a whole line at once.
                (Some(_), true) => self.line(state, piece, piece.len() > LOOKED_AT),
                (Some(_), false) => {
                    state.keep(piece);
                    let line = std::mem::take(&mut state.line);
                    let cut = std::mem::take(&mut state.cut);
                    self.line(state, &line, cut);
                }
                (None, _) => {
                    self.inside.set(true);
                    state.keep(piece);
                }
            }
        }
    }

    fn line(&self, state: &mut State, line: &[u8], cut: bool) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() && !cut {
            // Empty lines before a request are no head.
            if self.inside.get() {
                self.head_ends(state);
            }
            return;
        }
        self.inside.set(true);
        match line.first() {
            Some(b'c' | b'C') => {
                if let Some(value) = value_of(line, b"content-length") {
                    state.lengths += 1;
                    match length(value) {
                        Some(length) if !cut => state.length = length,
                        // hyper will refuse it too, unless it sees another sense in it.
                        _ => state.lengths += 1,
                    }
                }
            }
            Some(b't' | b'T') if value_of(line, b"transfer-encoding").is_some() => {
                state.encodings += 1;
            }
            _ => {}
        }
    }

    fn head_ends(&self, state: &mut State) {
        self.inside.set(false);
        self.heads.set(self.heads.get() + 1);
        let both = state.lengths > 0 && state.encodings > 0;
        if (both || state.lengths > 1 || state.encodings > 1) && self.ambiguous.get() == 0 {
            self.ambiguous.set(self.heads.get());
        }
        if state.encodings > 0 {
            self.lost.set(true);
        }
        state.skip = state.length;
        state.length = 0;
        state.lengths = 0;
        state.encodings = 0;
    }

    /// Whether the request with this number (the first is 1) is ambiguous. One whose head was not
    /// followed, as it came right behind a chunked request, is if it is chunked itself.
    pub(crate) fn refuses(&self, number: u32, chunked: bool) -> bool {
        self.ambiguous.get() == number || (number > self.heads.get() && chunked)
    }

    /// Whether a request has begun that is not at its head's end.
    pub(crate) fn is_inside(&self) -> bool {
        self.inside.get()
    }

    /// Whether it does not know where the next request begins.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.get()
    }

    /// The next byte begins a request.
    pub(crate) fn restart(&self) {
        *self.state.borrow_mut() = State::default();
        self.heads.set(0);
        self.ambiguous.set(0);
        self.inside.set(false);
        self.lost.set(false);
    }
}

impl State {
    fn keep(&mut self, piece: &[u8]) {
        let kept = piece.len().min(LOOKED_AT - self.line.len());
        self.line.extend_from_slice(&piece[..kept]);
        self.cut |= kept < piece.len();
    }
}

/// What follows a header's name and colon.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

fn length(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds whole, and byte by byte: the same must come of it.
    fn refused(text: &str, number: u32, chunked: bool) -> bool {
        let whole = Guard::default();
        whole.feed(text.as_bytes());
        let pieces = Guard::default();
        text.as_bytes()
            .iter()
            .for_each(|byte| pieces.feed(&[*byte]));
        let refused = whole.refuses(number, chunked);
        assert_eq!(pieces.refuses(number, chunked), refused, "{text:?}");
        refused
    }

    #[test]
    fn finds_what_has_two_lengths() {
        for ambiguous in [
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 4\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 4, 4\r\n\r\n",
            "POST / HTTP/1.1\nContent-Length: +4\n\n",
        ] {
            assert!(refused(ambiguous, 1, true), "{ambiguous:?}");
        }
        for clear in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nX-Content-Length: 4\r\nContent-Length-X: 5\r\n\r\n",
        ] {
            assert!(!refused(clear, 1, true), "{clear:?}");
        }
    }

    #[test]
    fn finds_the_next_request_behind_a_body() {
        let first = "POST / HTTP/1.1\r\nContent-Length: 31\r\n\r\n\
                     Transfer-Encoding:\r\n\r\nchunked\n\n";
        let second = "GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n";
        let both = [first, second].concat();
        assert!(!refused(&both, 1, false));
        assert!(refused(&both, 2, false));
    }

    #[test]
    fn takes_nothing_on_trust_behind_chunks() {
        let text = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / ...";
        assert!(refused(text, 2, true));
        assert!(!refused(text, 2, false));
        let guard = Guard::default();
        guard.feed(text.as_bytes());
        assert!(guard.is_lost());
        guard.restart();
        guard.feed(b"GET / HTTP/1.1\r\n");
        assert!(guard.is_inside() && !guard.refuses(1, false));
    }
}
