//! The date in answers that have none (RFC 9110, section 6.6.1): written once a tick of a worker's
//! clock, and not for each.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::SystemTime,
};

use bytes::{BufMut as _, BytesMut};
use http::HeaderValue;

use super::timers::Timers;

/// A worker's.
pub(crate) struct Date {
    timers: Rc<Timers>,
    /// The tick that it was written at.
    tick: Cell<u32>,
    value: RefCell<HeaderValue>,
}

impl Date {
    /// Now.
    pub(crate) fn new(timers: &Rc<Timers>) -> Self {
        Self {
            timers: timers.clone(),
            tick: Cell::new(timers.now()),
            value: RefCell::new(now()),
        }
    }

    /// Writes its header.
    pub(crate) fn put(&self, head: &mut BytesMut) {
        head.put(&b"date: "[..]);
        head.put(self.value().as_bytes());
        head.put(&b"\r\n"[..]);
    }

    /// It as a header's value.
    pub(crate) fn value(&self) -> HeaderValue {
        let value = &mut *self.value.borrow_mut();
        if self.tick.replace(self.timers.now()) != self.timers.now() {
            *value = now();
        }
        value.clone()
    }
}

fn now() -> HeaderValue {
    let date = httpdate::fmt_http_date(SystemTime::now());
    // Letters, digits and the like.
    HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static(""))
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
