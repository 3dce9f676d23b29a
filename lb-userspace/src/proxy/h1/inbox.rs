//! What was read of a connection ahead of its use.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};

use crate::proxy::io::Stream;

/// A body of which more than this is to come at once is read to where it stays.
const LARGE: u64 = 4096;

/// Least and most that is read at once of a large body.
const PIECES: (usize, usize) = (8 * 1024, 256 * 1024);

/// Most bytes that are read at once of what may be of any length.
const AT_ONCE: usize = 16 * 1024;

/// Bytes that are not copied to where they take no more memory than they need: to copy more costs
/// more than memory does that is given back soon.
const LONG: usize = 2048;

/// Where a worker's connections read to. What is long stays there.
#[derive(Clone, Default)]
pub(crate) struct Desk(Rc<RefCell<BytesMut>>);

impl Desk {
    fn poll_read(&self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let buffer = &mut *self.0.borrow_mut();
        buffer.reserve(AT_ONCE);
        let count = ready!(stream.poll_read_into(cx, buffer))?;
        Poll::Ready(Ok(match count {
            LONG.. => buffer.split().freeze(),
            _ => {
                let copy = Bytes::copy_from_slice(buffer);
                buffer.clear();
                copy
            }
        }))
    }
}

/// Bytes that were read and not looked at.
#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) bytes: Bytes,
    /// How much was read at once, the last time.
    last: usize,
}

impl Inbox {
    /// These bytes.
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, last: 0 }
    }

    /// Reads more behind what is there: how many bytes, none at the connection's end. `expected`:
    /// how many are known to come in a row.
    ///
    /// # Errors
    ///
    /// The connection's.
    pub(crate) fn poll_fill(
        &mut self,
        stream: &mut Stream,
        desk: &Desk,
        expected: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let count = if expected > LARGE && self.bytes.is_empty() {
            let size = (2 * self.last).clamp(PIECES.0, PIECES.1);
            let size = usize::try_from(expected).map_or(size, |expected| expected.min(size));
            let mut piece = BytesMut::with_capacity(size);
            let count = ready!(stream.poll_read_into(cx, &mut piece))?;
            self.bytes = piece.freeze();
            count
        } else {
            let more = ready!(desk.poll_read(stream, cx))?;
            let count = more.len();
            self.bytes = match self.bytes.is_empty() {
                true => more,
                false => behind(std::mem::take(&mut self.bytes), &more),
            };
            count
        };
        self.last = count;
        Poll::Ready(Ok(count))
    }

    /// What is there, of which nothing stays.
    pub(crate) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes)
    }
}

/// Bytes, and more of them.
fn behind(read: Bytes, more: &[u8]) -> Bytes {
    let mut all = read
        .try_into_mut()
        .unwrap_or_else(|read| BytesMut::from(&*read));
    all.extend_from_slice(more);
    all.freeze()
}
