//! Starting the agent that takes over from this one.

use std::{env, io};

use tokio::process::Command;

/// The option that has an agent take over.
const OPTION: &str = "--takeover";

/// Starts one as this one was started: the same command, which may be another version by now, with
/// the same arguments. It says itself how it goes.
///
/// # Errors
///
/// It cannot be run.
pub fn start() -> io::Result<()> {
    let mut words = env::args_os();
    let program = words.next().ok_or(io::ErrorKind::NotFound)?;
    let arguments: Vec<_> = words.collect();
    let mut command = Command::new(program);
    command.args(&arguments);
    if !arguments.iter().any(|word| word == OPTION) {
        command.arg(OPTION);
    }
    // Nobody waits for it: this one ends when it has taken over.
    command.spawn().map(drop)
}
