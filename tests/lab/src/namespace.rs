//! Network namespaces, and running things in them.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    panic,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};

/// Where `ip netns` keeps the named ones.
pub(crate) const DIRECTORY: &str = "/run/netns";

/// A named network namespace. Holding it keeps the namespace, not the name.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    file: Arc<OwnedFd>,
}

impl Namespace {
    /// Opens the namespace that `ip netns` lists as `name`.
    ///
    /// # Errors
    /// There is none, or it may not be opened.
    pub fn open(name: &str) -> Result<Self> {
        let path = Path::new(DIRECTORY).join(name);
        let file = File::open(&path)
            .with_context(|| format!("cannot open the namespace {}", path.display()))?;
        Ok(Self {
            name: name.to_owned(),
            file: Arc::new(file.into()),
        })
    }

    pub(crate) fn create(name: &str) -> Result<Self> {
        run(command("ip").args(["netns", "add", name]))?;
        Self::open(name)
    }

    /// What `ip netns` calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `job` on a thread of its own in the namespace. Sockets that it makes stay in the
    /// namespace, wherever they are used. A panic in it goes on in the caller.
    ///
    /// # Errors
    /// The namespace could not be entered (that takes root).
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let job = scope.spawn(|| {
                self.enter()?;
                Ok(job())
            });
            job.join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// A command that will run in the namespace. Unlike under `ip netns exec`, the child is the
    /// program itself, and it sees the same mounts as its parent, so also its /sys.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let file = Arc::clone(&self.file);
        let mut command = command(program);
        // SAFETY: between fork and exec, the closure makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
            });
        }
        command
    }

    /// Moves the calling thread into the namespace, for good.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(&*self.file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter the namespace {}", self.name))
    }

    /// Gives `ip -batch` these lines. Ctrl-C does not reach it.
    ///
    /// # Errors
    /// It refuses one.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut command = self.command("ip");
        let mut child = command
            .args(["-batch", "-"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run `ip`")?;
        let mut stdin = child.stdin.take().context("`ip` has no input")?;
        // A broken pipe means that `ip` stopped at an error, which it reports itself.
        let written = stdin.write_all(lines.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success() && written.is_ok(),
            "`ip -batch` in {} failed: {}\nits input:\n{lines}",
            self.name,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(())
    }

    /// Sets sysctls of the namespace, given as `net/...` paths.
    pub(crate) fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (name, value) in settings {
                fs::write(Path::new("/proc/sys").join(name), value)
                    .with_context(|| format!("cannot set {name} in {}", self.name))?;
            }
            Ok(())
        })?
    }
}

/// Removes the name. The namespace goes with the last that runs in it or holds it.
pub(crate) fn remove(name: &str) -> Result<()> {
    let removed = run(command("ip").args(["netns", "del", name]));
    // Another lab may be removing the same leftovers.
    removed.or_else(|error| {
        let there = Path::new(DIRECTORY).join(name).exists();
        if there { Err(error) } else { Ok(()) }
    })
}

/// A command that is also found if only root has its directory in PATH.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut path: OsString = env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    let mut command = Command::new(program);
    command.env("PATH", path);
    command
}

/// Runs a command to its end, also where Ctrl-C comes meanwhile, which is for this process; the error
/// has what it printed.
///
/// # Errors
/// It cannot be started, or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let output = command
        .process_group(0)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{:?} {:?} failed: {}{}",
        command.get_program(),
        command.get_args().collect::<Vec<_>>(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(())
}
