//! The demo's web servers, which come back after somebody kills them.

use std::time::{Duration, Instant};

use anyhow::Result;
use lab::{
    Backend,
    servers::{self, Daemon},
};

/// An nginx.
pub(super) struct Web {
    backend: String,
    port: u16,
    daemon: Daemon,
    /// When it was seen to have ended.
    ended: Option<Instant>,
}

/// What has become of an nginx.
pub(super) enum Server {
    /// It runs, as this process.
    Runs(u32),
    /// It has ended, and will be started in so many seconds.
    BackIn(u64),
}

impl Web {
    /// How long one that was killed stays away.
    pub(super) const AWAY: Duration = Duration::from_secs(10);

    pub(super) fn start(backend: &Backend, port: u16) -> Result<Self> {
        Ok(Self {
            backend: backend.name.clone(),
            port,
            daemon: servers::nginx(backend, port)?,
            ended: None,
        })
    }

    /// Its backend's name.
    pub(super) fn backend(&self) -> &str {
        &self.backend
    }

    /// Where it listens, on all addresses.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Sees whether it was killed, and starts it again when it is time.
    pub(super) fn tend(&mut self) -> Result<()> {
        if self.daemon.is_running() {
            return Ok(());
        }
        if self.ended.get_or_insert_with(Instant::now).elapsed() >= Self::AWAY {
            self.daemon.start()?;
            self.ended = None;
        }
        Ok(())
    }

    /// What was seen of it last.
    pub(super) fn server(&self) -> Server {
        match (self.ended, self.daemon.id()) {
            (None, Some(id)) => Server::Runs(id),
            (ended, _) => {
                let away = ended.map_or(Duration::ZERO, |ended| ended.elapsed());
                Server::BackIn(Self::AWAY.saturating_sub(away).as_secs())
            }
        }
    }
}
