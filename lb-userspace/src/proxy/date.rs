//! The date in answers that have none (RFC 9110, section 6.6.1): written once a tick of a worker's
//! clock, and not for each.

use std::{cell::Cell, rc::Rc, time::SystemTime};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderValue;

use super::timers::Timers;

/// Bytes of a date.
const LENGTH: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();

/// A worker's.
pub(crate) struct Date {
    timers: Rc<Timers>,
    /// The tick that it was written at.
    tick: Cell<u32>,
    text: Cell<[u8; LENGTH]>,
}

impl Date {
    /// Now.
    pub(crate) fn new(timers: &Rc<Timers>) -> Self {
        Self {
            timers: timers.clone(),
            tick: Cell::new(timers.now()),
            text: Cell::new(text()),
        }
    }

    /// Writes its header.
    pub(crate) fn put(&self, head: &mut BytesMut) {
        head.put(&b"date: "[..]);
        head.put(&self.text()[..]);
        head.put(&b"\r\n"[..]);
    }

    /// It as a header's value.
    pub(crate) fn value(&self) -> Option<HeaderValue> {
        HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&self.text())).ok()
    }

    fn text(&self) -> [u8; LENGTH] {
        if self.tick.replace(self.timers.now()) != self.timers.now() {
            self.text.set(text());
        }
        self.text.get()
    }
}

fn text() -> [u8; LENGTH] {
    let mut text = [b' '; LENGTH];
    let date = httpdate::fmt_http_date(SystemTime::now());
    // They are all of one length.
    for (to, from) in text.iter_mut().zip(date.bytes()) {
        *to = from;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_date() {
        let mut head = BytesMut::new();
        Date::new(&Timers::new()).put(&mut head);
        let line = std::str::from_utf8(&head).unwrap();
        let date = line.strip_prefix("date: ").unwrap().trim_end();
        let said = httpdate::parse_http_date(date).unwrap();
        assert!(said.elapsed().unwrap().as_secs() < 60);
    }
}
