//! `weir agent`: everything put together, until a signal ends it, or another agent takes over.

mod begun;
mod node;
mod running;

use std::path::PathBuf;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use self::begun::Begun;
use crate::{
    config::Config,
    ha,
    proxy::access_log,
    shared,
    takeover::{self, Taken},
};

/// Where the configuration is.
pub enum Source {
    /// In a file.
    File(PathBuf),
    /// In etcd, for what nodes share, and in a file, for what is this one's own.
    Shared(shared::Options),
}

/// Loads the configuration and the data path, and runs until SIGINT or SIGTERM, or until another
/// agent has taken over. `takeover`: from the one that runs, if one does.
///
/// # Errors
///
/// What is wrong with the configuration, the sockets or the data path.
pub async fn run(source: Source, takeover: bool) -> anyhow::Result<()> {
    let (config, opened) = match source {
        Source::File(file) => (Config::load(&file)?, None),
        Source::Shared(options) => {
            let opened = shared::open(options).await?;
            (opened.config.clone(), Some(opened))
        }
    };
    raise_descriptors();
    reopen_logs_on_hangup()?;
    let (votes, voting) = match &opened {
        Some(opened) => shared::vote(opened).await.unzip(),
        None => (None, None),
    };
    let shared = opened.map(|opened| Sharing { opened, voting });
    let Some(taken) = taken(&config, takeover).await? else {
        // Before the data path: an agent that is running keeps its own.
        let begun = Begun::new(&config)?.start(&config, votes)?;
        return begun.run(config, shared, ha::Known::default()).await;
    };
    let (begun, link) = Begun::taken_over(&config, taken);
    match begun.and_then(|begun| begun.start(&config, votes)) {
        Ok(begun) => {
            let known = link.attached().await;
            begun.run(config, shared, known).await
        }
        Err(error) => {
            link.refuse(&error).await;
            Err(error.context("the agent that runs goes on, as this one cannot take over"))
        }
    }
}

/// What an agent shares with other nodes.
struct Sharing {
    opened: shared::Opened,
    voting: Option<shared::Voting>,
}

/// What another agent has given up.
async fn taken(config: &Config, takeover: bool) -> anyhow::Result<Option<Taken>> {
    if !takeover {
        return Ok(None);
    }
    let taken = takeover::take(&config.agent).await?;
    if taken.is_none() {
        tracing::info!("no agent runs to take over from");
    }
    Ok(taken)
}

fn reopen_logs_on_hangup() -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("opening access logs anew");
            access_log::reopen();
        }
    });
    Ok(())
}

/// The proxy needs a descriptor a connection, on both sides.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
}
