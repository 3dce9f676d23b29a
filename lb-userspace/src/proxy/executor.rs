//! Where hyper's HTTP/2 puts its tasks: on the worker's own thread.

use std::future::Future;

use hyper::rt::Executor;
use tokio::task::spawn_local;

/// The worker that it is used on.
#[derive(Clone, Copy)]
pub(crate) struct Local;

impl<F: Future<Output: 'static> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
