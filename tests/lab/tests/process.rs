//! Child processes do as they are told.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{Process, retry};
use nix::sys::signal::{SigSet, Signal};

/// A shell with a child, and the child's id. Neither ends by itself.
fn family() -> Result<(Process, u32)> {
    // What the test has blocked is not to be blocked in the children.
    SigSet::from(Signal::SIGTERM).thread_block()?;
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "sleep 600 & echo $!; trap 'kill $!; exit 7' TERM; wait",
    ]);
    command.stdout(Stdio::piped());
    let mut shell = Process::spawn(command)?;
    let mut child = String::new();
    BufReader::new(shell.take_stdout().context("no output")?).read_line(&mut child)?;
    Ok((shell, child.trim().parse()?))
}

/// The letter for what a process does, `T` if it is stopped; none if it is gone.
fn state(id: u32) -> Option<char> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let state = status
        .lines()
        .find_map(|line| line.strip_prefix("State:"))?;
    state.trim().chars().next().filter(|state| *state != 'Z')
}

fn becomes(id: u32, is: impl Fn(Option<char>) -> bool) -> Result<()> {
    retry(Duration::from_secs(10), || {
        let state = state(id);
        ensure!(is(state), "{id} is {state:?}");
        Ok(())
    })
}

#[test]
fn pausing_includes_children() -> Result<()> {
    let (mut shell, child) = family()?;
    shell.pause()?;
    for id in [shell.id(), child] {
        becomes(id, |state| state == Some('T'))?;
    }
    shell.resume()?;
    for id in [shell.id(), child] {
        becomes(id, |state| state == Some('S'))?;
    }
    ensure!(shell.is_running());
    shell.pause()?;
    assert_eq!(shell.stop()?.code(), Some(7));
    becomes(child, |state| state.is_none())
}

#[test]
fn outlives_the_thread_that_started_it_but_not_its_owner() -> Result<()> {
    let (mut shell, child) = thread::spawn(family).join().ok().context("it panicked")??;
    let id = shell.id();
    // The kernel would have told it at the latest when the thread was joined.
    ensure!(shell.is_running());
    becomes(child, |state| state == Some('S'))?;
    drop(shell);
    assert_eq!(state(id), None);
    becomes(child, |state| state.is_none())
}
