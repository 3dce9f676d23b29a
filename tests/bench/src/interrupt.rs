//! Ctrl-C, after which everything that was made is still removed.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Result, ensure};
use nix::sys::signal::{SigSet, Signal};

static CAME: AtomicBool = AtomicBool::new(false);

/// Notes SIGINT, SIGTERM and SIGHUP from now on, instead of dying of them. To be called before
/// there are other threads.
pub(crate) fn note() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block()?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            CAME.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// An error once one has come.
pub(crate) fn check() -> Result<()> {
    ensure!(!CAME.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
