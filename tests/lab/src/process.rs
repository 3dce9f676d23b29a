//! Child processes that end with their owner.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    process::{self, Child, ChildStdout, Command, ExitStatus},
    sync::{LazyLock, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{SigSet, Signal, kill},
    },
    unistd::{Pid, getppid},
};

use crate::retry;

/// How long a process may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A child process. It is ended when this is dropped, and killed by the kernel if this process
/// dies before that, however it dies.
#[derive(Debug)]
pub struct Process {
    child: Child,
    end: Signal,
}

impl Process {
    /// Starts the command, which SIGTERM will end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(command: Command) -> Result<Self> {
        Self::spawn_ended_by(Signal::SIGTERM, command)
    }

    /// Starts the command, which `end` will end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn_ended_by(end: Signal, mut command: Command) -> Result<Self> {
        let parent = Pid::from_raw(process::id() as i32);
        let what = command.get_program().to_owned();
        // Ctrl-C is for this process, which ends its children when it has no more use for them.
        command.process_group(0);
        // SAFETY: between fork and exec, the closure makes system calls and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                // What this process has blocked, the child would have too.
                SigSet::empty().thread_set_mask()?;
                // The parent may have died before the line above.
                if getppid() == parent {
                    Ok(())
                } else {
                    Err(io::ErrorKind::BrokenPipe.into())
                }
            });
        }
        let (answer, child) = mpsc::sync_channel(1);
        SPAWNER
            .send((command, answer))
            .map_err(|_| anyhow!("the thread that starts processes is gone"))?;
        let child = child
            .recv()
            .context("the thread that starts processes is gone")?
            .with_context(|| format!("cannot start {}", what.display()))?;
        Ok(Self { child, end })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its process id, and those of its descendants.
    pub fn family(&self) -> Vec<u32> {
        let mut all = vec![self.id()];
        all.extend(descendants(self.id()));
        all
    }

    /// Its standard output, if that is a pipe and was not taken yet.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal; none if it has ended.
    ///
    /// # Errors
    /// It may not be signalled.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            // Not waited for yet, so the id is still its own.
            kill(pid(self.id()), signal)?;
        }
        Ok(())
    }

    /// Stops it and its descendants where they are (SIGSTOP): its sockets stay, and nobody
    /// answers on them.
    ///
    /// # Errors
    /// It may not be signalled.
    pub fn pause(&mut self) -> Result<()> {
        self.signal_all(Signal::SIGSTOP)
    }

    /// Lets it and its descendants go on (SIGCONT).
    ///
    /// # Errors
    /// It may not be signalled.
    pub fn resume(&mut self) -> Result<()> {
        self.signal_all(Signal::SIGCONT)
    }

    /// Ends it, also if it is paused: by its signal, after five seconds by SIGKILL.
    ///
    /// # Errors
    /// It may not be signalled, or not be waited for.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(self.end)?;
        self.resume()?;
        let ended = retry(PATIENCE, || self.child.try_wait()?.context("still running"));
        ended.or_else(|_| {
            self.child.kill()?;
            Ok(self.child.wait()?)
        })
    }

    fn signal_all(&mut self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        self.signal(signal)?;
        for descendant in descendants(self.id()) {
            // One that ended meanwhile needs no signal.
            let _ = kill(pid(descendant), signal);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("lab: process {}: {error:#}", self.id());
        }
    }
}

type Request = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts all processes: the kernel takes a child's parent to be the thread that started it,
/// and kills the child when that thread ends. This one never does.
static SPAWNER: LazyLock<mpsc::Sender<Request>> = LazyLock::new(|| {
    let (requests, received) = mpsc::channel::<Request>();
    thread::spawn(move || {
        for (mut command, answer) in received {
            // Whoever asked waits for the answer.
            let _ = answer.send(command.spawn());
        }
    });
    requests
});

fn pid(id: u32) -> Pid {
    Pid::from_raw(id as i32)
}

/// The children of a process, and theirs.
fn descendants(id: u32) -> Vec<u32> {
    let mut found = vec![id];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        // Another thread than the first may have children too.
        let threads = fs::read_dir(format!("/proc/{parent}/task"));
        let children: Vec<u32> = threads
            .into_iter()
            .flatten()
            .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
            .flat_map(|list| {
                list.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .filter_map(|child| child.parse().ok())
            .collect();
        found.extend(children);
        next += 1;
    }
    found.split_off(1)
}
