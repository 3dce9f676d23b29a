//! Asking a second backend when the first takes long: the first answer counts (Dean and Barroso,
//! "The Tail at Scale", 2013).

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use crate::proxy::timers::{Timer, Timers};

/// Waits for `first`; after `delay` for what `second` makes too, if anything. Whichever succeeds
/// counts, and whether it is the second; if both fail, the first's failure.
pub(super) async fn race<T, F, S>(
    timers: &Rc<Timers>,
    delay: Duration,
    first: impl Future<Output = Result<T, F>>,
    second: impl FnOnce() -> Option<S>,
) -> (Result<T, F>, bool)
where
    S: Future<Output = Result<T, F>>,
{
    let timer = Timer::after(timers, delay);
    let mut first = pin!(first);
    let mut failed: Option<F> = None;
    let mut begin = Some(second);
    let mut other: Option<Pin<Box<S>>> = None;
    poll_fn(|cx| {
        if failed.is_none()
            && let Poll::Ready(done) = first.as_mut().poll(cx)
        {
            match done {
                Ok(answer) => return Poll::Ready((Ok(answer), false)),
                Err(failure) => failed = Some(failure),
            }
        }
        if failed.is_none() && timer.poll(cx).is_ready() {
            other = other.take().or_else(|| begin.take()?().map(Box::pin));
        }
        if let Some(second) = &mut other {
            match second.as_mut().poll(cx) {
                Poll::Ready(Ok(answer)) => return Poll::Ready((Ok(answer), true)),
                Poll::Ready(Err(_)) => other = None,
                Poll::Pending => return Poll::Pending,
            }
        }
        match failed.take() {
            Some(failure) => Poll::Ready((Err(failure), false)),
            None => Poll::Pending,
        }
    })
    .await
}
