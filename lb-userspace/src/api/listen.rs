//! Where the API listens.

use std::{
    fs::{self, Permissions},
    io::ErrorKind,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use axum::Router;
use tokio::net::{TcpListener, UnixListener};

use crate::config::Admin;

/// Open listeners. Dropping them removes the socket's file.
pub struct Listeners {
    unix: UnixListener,
    tcp: Option<TcpListener>,
    _file: SocketFile,
}

struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!("removing {}: {error}", self.0.display());
        }
    }
}

/// Opens them. Only the owner of the agent may use the Unix socket.
///
/// # Errors
///
/// Names the address; in particular where another agent answers there.
pub async fn listen(admin: &Admin) -> anyhow::Result<Listeners> {
    let path = &admin.socket;
    let unix = unix(path).with_context(|| format!("admin socket {}", path.display()))?;
    let file = SocketFile(path.clone());
    let tcp = match admin.listen {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.with_context(|| format!("admin address {address}"))?)
        }
        None => None,
    };
    Ok(Listeners {
        unix,
        tcp,
        _file: file,
    })
}

fn unix(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    if UnixStream::connect(path).is_ok() {
        bail!(
            "another agent answers there: stop it, or give this one another `agent.admin.socket`"
        );
    }
    // What an agent that was killed has left; anything but a socket stays, and bind refuses.
    if fs::symlink_metadata(path).is_ok_and(|file| is_socket(&file)) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn is_socket(file: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    file.file_type().is_socket()
}

/// Answers requests until dropped.
///
/// # Errors
///
/// A listener's.
pub async fn serve(listeners: Listeners, router: Router) -> std::io::Result<()> {
    let unix = axum::serve(listeners.unix, router.clone());
    match listeners.tcp {
        Some(tcp) => {
            let tcp = axum::serve(tcp, router);
            tokio::try_join!(unix.into_future(), tcp.into_future()).map(|_| ())
        }
        None => unix.await,
    }
}
