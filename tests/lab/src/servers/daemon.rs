//! A server that is a program.

use std::{
    fs::{self, File},
    net::{Ipv6Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::{Backend, Namespace, Process, retry};

/// How long a server may take until it accepts connections.
const PATIENCE: Duration = Duration::from_secs(30);

/// What makes up a server program.
pub(super) struct Recipe {
    /// Where it listens, and on which port.
    pub(super) host: Namespace,
    pub(super) port: u16,
    /// The program with its arguments; it must not go into the background.
    pub(super) command: Box<dyn Fn() -> Command + Send>,
    /// Succeeds once it serves.
    pub(super) ready: Box<dyn Fn() -> Result<()> + Send>,
    /// The signal that ends it without waiting for its clients.
    pub(super) end: Signal,
    /// Where its output goes.
    pub(super) log: PathBuf,
}

/// A server program on a backend. It is stopped when this is dropped.
pub struct Daemon {
    recipe: Recipe,
    process: Option<Process>,
}

/// A program on a backend that serves as soon as it accepts connections to the backend's IPv4
/// address. `command` is told of a directory for its files, and gives the program with its
/// arguments; the program must not go into the background. `end` ends it without waiting for its
/// clients.
///
/// # Errors
/// It cannot be started, or does not serve; with what it printed.
pub fn program(
    backend: &Backend,
    port: u16,
    end: Signal,
    command: impl Fn(&Namespace, &Path) -> Command + Send + 'static,
) -> Result<Daemon> {
    let directory = backend.directory.join(format!("server-{port}"));
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let (log, address) = (directory.join("log"), (backend.addresses.v4, port));
    let (namespace, client) = (backend.namespace.clone(), backend.namespace.clone());
    Daemon::started(Recipe {
        host: backend.namespace.clone(),
        port,
        command: Box::new(move || command(&namespace, &directory)),
        ready: Box::new(move || {
            client.run(|| TcpStream::connect(address))??;
            Ok(())
        }),
        end,
        log,
    })
}

impl Daemon {
    pub(super) fn started(recipe: Recipe) -> Result<Self> {
        let process = None;
        let mut daemon = Self { recipe, process };
        daemon.start()?;
        Ok(daemon)
    }

    /// Starts it again after [`Daemon::stop`], and waits until it serves. Does nothing if it
    /// runs.
    ///
    /// # Errors
    /// It cannot be started, or does not serve; with what it printed.
    pub fn start(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let port = self.recipe.port;
        // Another server there would be taken for this one.
        let free = self
            .recipe
            .host
            .run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?;
        drop(free.with_context(|| format!("port {port} of {}", self.recipe.host.name()))?);
        let log = File::create(&self.recipe.log)
            .with_context(|| format!("cannot make {}", self.recipe.log.display()))?;
        let mut command = (self.recipe.command)();
        command.stdout(log.try_clone()?).stderr(log);
        let mut process = Process::spawn_ended_by(self.recipe.end, command)?;
        let served = retry(PATIENCE, || {
            // One that has ended is not worth waiting for.
            let running = process.is_running();
            running.then(|| (self.recipe.ready)()).transpose()
        });
        served
            .and_then(|served| served.context("it has ended"))
            .with_context(|| {
                let printed = fs::read_to_string(&self.recipe.log).unwrap_or_default();
                format!("a server does not serve; it printed: {printed}")
            })?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it. Its connections are closed.
    ///
    /// # Errors
    /// It may not be signalled.
    pub fn stop(&mut self) -> Result<()> {
        self.process
            .take()
            .map_or(Ok(()), |mut process| process.stop().map(drop))
    }

    /// Kills it (SIGKILL): what it has not written is lost.
    ///
    /// # Errors
    /// It is not running, or may not be signalled.
    pub fn kill(&mut self) -> Result<()> {
        self.running()?.signal(Signal::SIGKILL)?;
        self.stop()
    }

    /// What it has printed since it was started.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.recipe.log).unwrap_or_else(|error| error.to_string())
    }

    /// Stops it where it is: connections are accepted by the kernel, and nothing answers.
    ///
    /// # Errors
    /// It is not running, or may not be signalled.
    pub fn pause(&mut self) -> Result<()> {
        self.running()?.pause()
    }

    /// Lets it go on after [`Daemon::pause`].
    ///
    /// # Errors
    /// It is not running, or may not be signalled.
    pub fn resume(&mut self) -> Result<()> {
        self.running()?.resume()
    }

    /// Whether it runs; it may be paused.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Its process id, if it was started and not stopped.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the server is stopped")
    }
}
