//! A connection that has become something else than HTTP: bytes both ways, with no memory held
//! while none flow.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::body::{Buf as _, Bytes};
use tokio::io::ReadBuf;

use super::{
    backend::Held,
    client::Link,
    io::Stream,
    request::Exchange,
    timers::{Timer, ticks},
};

/// Reads in a row before others have their turn.
const IN_A_ROW: usize = 16;

/// Ticks between two looks at the clock.
const SECOND: u32 = 10;

/// The backend's side of a tunnel to be.
pub(crate) struct Tunnel {
    /// The backend's connection.
    pub(crate) backend: Stream,
    /// What was read from it already.
    pub(crate) read: Bytes,
    /// The request that opened it, which is in flight until it closes.
    pub(crate) exchange: Exchange,
    /// How long it may be silent.
    pub(crate) silence: Duration,
    /// The connection is counted until it closes.
    pub(crate) held: Held,
}

/// One direction.
struct Half {
    pending: Bytes,
    state: State,
    moved: u64,
}

#[derive(PartialEq)]
enum State {
    Open,
    /// Nothing more comes; what is pending goes on.
    Ending,
    Ended,
}

impl Tunnel {
    /// Moves bytes until both sides have ended or one breaks. `read` came from the client already.
    pub(crate) async fn run(mut self, link: &Rc<Link>, mut client: Stream, read: Bytes) {
        let worker = &link.worker;
        let (mut up, mut down) = (Half::new(read), Half::new(self.read));
        let timer = Timer::new(&worker.timers);
        timer.set(SECOND);
        let mut last = (worker.timers.now(), 0);
        let backend = &mut self.backend;
        poll_fn(|cx| {
            let mut scratch = worker.scratch.borrow_mut();
            let there = up.poll(&mut client, backend, &mut scratch, cx);
            let back = down.poll(backend, &mut client, &mut scratch, cx);
            drop(scratch);
            if matches!(there, Poll::Ready(Err(_))) || matches!(back, Poll::Ready(Err(_))) {
                return Poll::Ready(());
            }
            if there.is_ready() && back.is_ready() {
                return Poll::Ready(());
            }
            while timer.poll(cx).is_ready() {
                timer.set(SECOND);
                let (now, moved) = (worker.timers.now(), up.moved + down.moved);
                if moved != last.1 {
                    last = (now, moved);
                }
                let silent = now.saturating_sub(last.0) >= ticks(self.silence);
                if silent || link.listener.is_over(worker) {
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        })
        .await;
        self.exchange.tunnelled(up.moved, down.moved);
        drop(self.held);
    }
}

impl Half {
    fn new(pending: Bytes) -> Half {
        Half {
            pending,
            state: State::Open,
            moved: 0,
        }
    }

    fn poll(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        for _ in 0..IN_A_ROW {
            while !self.pending.is_empty() {
                let written = ready!(to.poll_write(cx, &self.pending))?;
                self.wrote(written)?;
                self.pending.advance(written);
            }
            // An empty part of a buffer would keep it.
            self.pending = Bytes::new();
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(to.poll_shutdown(cx))?;
                    self.state = State::Ended;
                    return Poll::Ready(Ok(()));
                }
                State::Open => {}
            }
            let mut buffer = ReadBuf::new(scratch);
            if from.poll_read(cx, &mut buffer)?.is_pending() {
                ready!(to.poll_flush(cx))?;
                return Poll::Pending;
            }
            let bytes = buffer.filled();
            if bytes.is_empty() {
                self.state = State::Ending;
                continue;
            }
            // Mostly it all goes out at once.
            let written = match to.poll_write(cx, bytes)? {
                Poll::Ready(written) => self.wrote(written)?,
                Poll::Pending => 0,
            };
            self.pending = Bytes::copy_from_slice(&bytes[written..]);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn wrote(&mut self, count: usize) -> io::Result<usize> {
        self.moved += count as u64;
        match count {
            0 => Err(io::ErrorKind::WriteZero.into()),
            _ => Ok(count),
        }
    }
}
