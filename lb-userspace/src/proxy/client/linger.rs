//! Closing a connection so that the client gets the last answer: a socket that is closed with
//! unread bytes sends a RST, and that may overtake the answer.

use std::{future::poll_fn, task::Poll, time::Duration};

use tokio::io::ReadBuf;

use super::Link;
use crate::proxy::{io::Stream, timers::Timer};

/// How long the client has to take the answer and close.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most bytes that are read and thrown away.
const MOST: usize = 256 * 1024;

/// Says that no more will come, and waits until the client closes.
pub(super) async fn linger(link: &Link, mut stream: Stream) {
    let timer = Timer::after(&link.worker.timers, PATIENCE);
    let mut said = false;
    let mut read = 0;
    poll_fn(|cx| {
        if !said {
            match stream.poll_shutdown(cx) {
                Poll::Ready(Ok(())) => said = true,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        let mut scratch = link.worker.scratch.borrow_mut();
        while read < MOST {
            let mut buffer = ReadBuf::new(&mut scratch);
            match stream.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => read += buffer.filled().len(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return timer.poll(cx),
            }
        }
        Poll::Ready(())
    })
    .await;
}
