//! Where the API listens.

use std::{
    fs::{self, Permissions},
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use axum::Router;
use tokio::{sync::watch, task::JoinSet};

use crate::config::Admin;

/// Open listeners.
pub struct Listeners {
    unix: UnixListener,
    tcp: Option<TcpListener>,
    /// The Unix socket's.
    pub file: SocketFile,
}

/// A Unix socket's file, which is removed when this is dropped, if it is this agent's.
pub struct SocketFile {
    path: PathBuf,
    /// Whether it is this agent's, and not that of one to take over from, or that has taken over.
    pub own: bool,
}

impl SocketFile {
    /// The file at this path.
    pub fn new(path: &Path, own: bool) -> Self {
        let path = path.to_owned();
        Self { path, own }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.own
            && let Err(error) = fs::remove_file(&self.path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!("removing {}: {error}", self.path.display());
        }
    }
}

/// Opens them. Only the owner of the agent may use the Unix socket.
///
/// # Errors
///
/// Names the address; in particular where another agent answers there.
pub fn listen(admin: &Admin) -> anyhow::Result<Listeners> {
    let path = &admin.socket;
    let unix = unix(path).with_context(|| format!("admin socket {}", path.display()))?;
    let file = SocketFile::new(path, true);
    let tcp = admin.listen.map(tcp).transpose()?;
    Ok(Listeners { unix, tcp, file })
}

fn unix(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    if UnixStream::connect(path).is_ok() {
        bail!(
            "another agent answers there: take over from it (`--takeover`), stop it, or give this \
             one another `agent.admin.socket`"
        );
    }
    // What an agent that was killed has left; anything but a socket stays, and bind refuses.
    if fs::symlink_metadata(path).is_ok_and(|file| is_socket(&file)) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn is_socket(file: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    file.file_type().is_socket()
}

fn tcp(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok::<_, io::Error>(listener)
    };
    listen().with_context(|| format!("admin address {address}"))
}

impl Listeners {
    /// Goes on with those of an agent before this one, where they are what is wanted. The file is
    /// not this one's yet.
    ///
    /// # Errors
    ///
    /// An address that the other did not have cannot be bound.
    pub fn taken_over(
        admin: &Admin,
        unix: OwnedFd,
        old: Option<(SocketAddr, OwnedFd)>,
    ) -> anyhow::Result<Self> {
        let tcp = match (admin.listen, old) {
            (Some(address), Some((old, socket))) if address == old => Some(socket.into()),
            (address, _) => address.map(tcp).transpose()?,
        };
        Ok(Self {
            unix: unix.into(),
            tcp,
            file: SocketFile::new(&admin.socket, false),
        })
    }

    /// The Unix socket, for another process.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn unix(&self) -> io::Result<OwnedFd> {
        Ok(self.unix.try_clone()?.into())
    }

    /// The TCP socket, if there is one, for another process.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn tcp(&self) -> io::Result<Option<(SocketAddr, OwnedFd)>> {
        let share = |tcp: &TcpListener| Ok((tcp.local_addr()?, tcp.try_clone()?.into()));
        self.tcp.as_ref().map(share).transpose()
    }

    /// Answers requests until that is stopped or dropped. Within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn serve(&self, router: &Router) -> io::Result<Serving> {
        let (stop, stopped) = watch::channel(());
        let stopped = || {
            let mut stopped = stopped.clone();
            // Nothing is ever sent.
            async move { drop(stopped.changed().await) }
        };
        let mut tasks = JoinSet::new();
        let unix = tokio::net::UnixListener::from_std(self.unix.try_clone()?)?;
        let served = axum::serve(unix, router.clone()).with_graceful_shutdown(stopped());
        tasks.spawn(served.into_future());
        if let Some(tcp) = &self.tcp {
            let tcp = tokio::net::TcpListener::from_std(tcp.try_clone()?)?;
            let served = axum::serve(tcp, router.clone()).with_graceful_shutdown(stopped());
            tasks.spawn(served.into_future());
        }
        Ok(Serving { tasks, _stop: stop })
    }
}

/// The API as it is served.
pub struct Serving {
    tasks: JoinSet<io::Result<()>>,
    // Its end is what is told.
    _stop: watch::Sender<()>,
}

impl Serving {
    /// Accepts no more; requests that are under way are answered.
    pub fn stop(mut self) {
        self.tasks.detach_all();
    }

    /// Returns when it cannot go on.
    ///
    /// # Errors
    ///
    /// Why.
    pub async fn failed(&mut self) -> anyhow::Result<()> {
        match self.tasks.join_next().await {
            Some(ended) => Ok(ended??),
            None => Ok(()),
        }
    }
}
