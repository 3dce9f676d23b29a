//! What is tried again.

use std::rc::Rc;

use hyper::Method;

use super::attempt::Failure;
use crate::{
    config::http::{Retries, RetryOn},
    proxy::local::LocalPool,
};

/// Retries that a pool may have at a time, however few requests it has.
const AT_LEAST: u32 = 3;

/// Whether doing it twice does no more than doing it once (RFC 9110, section 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

/// Whether a request may be tried again after a failure; see [`RetryOn`].
pub(super) fn allows(retries: &Retries, failure: &Failure, idempotent: bool, again: bool) -> bool {
    let on = |what| retries.on.contains(&what);
    match failure {
        Failure::Connect(_) => on(RetryOn::Connect),
        Failure::Unprocessed => on(RetryOn::Unprocessed),
        Failure::Unsent => on(RetryOn::Closed) || on(RetryOn::Unprocessed),
        Failure::Closed => on(RetryOn::Closed) && idempotent && !again,
        Failure::Reset => on(RetryOn::Reset) && idempotent,
        Failure::Timeout => on(RetryOn::Timeout) && idempotent,
        Failure::Status(status) => retries.statuses.contains(status) && idempotent,
        Failure::Client(_) | Failure::Late | Failure::Nonsense | Failure::Breaker => false,
    }
}

/// A retry under way, of those that a pool may have at a time.
pub(super) struct Retrying(Rc<LocalPool>);

impl Retrying {
    /// One more, if the budget allows it.
    pub(super) fn begin(pool: &Rc<LocalPool>, retries: &Retries) -> Option<Retrying> {
        let allowed = u64::from(pool.in_flight.get()) * u64::from(retries.budget_percent) / 100;
        let allowed = allowed.max(u64::from(AT_LEAST));
        if u64::from(pool.retrying.get()) >= allowed {
            return None;
        }
        pool.retrying.set(pool.retrying.get() + 1);
        Some(Retrying(pool.clone()))
    }
}

impl Drop for Retrying {
    fn drop(&mut self) {
        self.0.retrying.set(self.0.retrying.get() - 1);
    }
}
