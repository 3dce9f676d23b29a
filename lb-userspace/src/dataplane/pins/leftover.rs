//! Ending what a dead agent has left.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use anyhow::Context as _;
use serde::Serialize;

use super::{Found, Pins, lock};

/// What a dead agent left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// The interface's index.
    pub ifindex: u32,
    /// `native` or `generic`.
    pub mode: String,
}

/// Detaches what an agent that is dead has left, and removes all its pins. Returns where its
/// program ran.
///
/// # Errors
///
/// An agent is alive that has the directory; or the kernel's.
pub fn detach(directory: &Path) -> anyhow::Result<Vec<Leftover>> {
    let opened = open_existing(directory).with_context(|| directory.display().to_string())?;
    let Some(pins) = opened else {
        return Ok(Vec::new());
    };
    let links = pins.links()?.into_iter();
    let left = links.map(|Found { ifindex, mode, .. }| Leftover { ifindex, mode });
    let left = left.collect();
    pins.remove()?;
    Ok(left)
}

/// Takes a directory if it is there.
///
/// # Errors
///
/// Another agent has it, or the kernel's.
fn open_existing(directory: &Path) -> anyhow::Result<Option<Pins>> {
    match lock(directory) {
        Ok(Some(lock)) => Ok(Some(Pins {
            directory: directory.to_owned(),
            fresh: Vec::new(),
            lock: Some(lock),
        })),
        Ok(None) => Ok(None),
        Err(error) => match error.downcast_ref::<io::Error>() {
            Some(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            _ => Err(error),
        },
    }
}
