//! Asynchronous work inside a namespace.

use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use tokio::{runtime, sync::oneshot};

use crate::Namespace;

/// A thread with a runtime of its own in a namespace. Dropping it drops all that runs there,
/// sockets included.
#[derive(Debug)]
pub(crate) struct Task {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Task {
    /// Runs `work`, and what it spawns, until it ends or this is dropped.
    pub(crate) fn start(
        namespace: &Namespace,
        work: impl AsyncFnOnce() + Send + 'static,
    ) -> Result<Self> {
        let runtime = namespace.run(|| runtime::Builder::new_current_thread().enable_all().build());
        let runtime = runtime?.context("cannot make a runtime")?;
        let (stop, stopped) = oneshot::channel();
        let namespace = namespace.clone();
        let (entered, ready) = std::sync::mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            let entering = namespace.enter();
            let inside = entering.is_ok();
            // Whoever started it waits for the answer.
            let _ = entered.send(entering);
            if inside {
                runtime.block_on(async {
                    tokio::select! {
                        _ = stopped => {}
                        () = work() => {}
                    }
                });
            }
        });
        ready.recv().context("the thread is gone")??;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Waits for `work` to end.
    pub(crate) fn finish(mut self) {
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("lab: a thread panicked");
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // Nobody receives it if the work has ended.
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        self.join();
    }
}
