//! The configuration to begin with: what is in etcd, or else the copy on disk.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};

use super::{
    Location, Origin,
    copy::Copy,
    store::{Store, StoreError, Stored},
};
use crate::{
    config::{Config, ConfigError, Local, Problems, Shared},
    events::{self, Kind},
};

/// What an agent needs to share its configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the shared document is.
    pub location: Location,
    /// The file with what is this node's own.
    pub local: PathBuf,
    /// Where the copy on disk is.
    pub copy: PathBuf,
}

/// A configuration to begin with, and where it comes from.
pub struct Opened {
    /// The whole.
    pub config: Config,
    pub(super) options: Options,
    pub(super) local: Local,
    pub(super) origin: Origin,
    pub(super) revision: i64,
}

/// Reads what is shared and what is not. Where etcd has nothing to use, and a copy is on disk,
/// that is taken, and the log says so.
///
/// # Errors
///
/// The local part is wrong; or there is neither a document nor a copy that can be used.
pub async fn open(options: Options) -> anyhow::Result<Opened> {
    let local = Local::load(&options.local)?;
    let found = fetch(&options.location).await;
    let usable = found.and_then(|found| Ok((usable(&options, &local, &found)?, found.revision)));
    let (config, origin, revision) = match usable {
        Ok((config, revision)) => (config, Origin::Etcd, revision),
        Err(error) => {
            let (config, revision) = from_disk(&options, &local).with_context(|| {
                format!("{}: {error:#}; and the copy on disk", options.location)
            })?;
            let copy = options.copy.display();
            events::warn(
                Kind::Configuration,
                &options.location,
                format!(
                    "going on with the copy on disk, {copy}, of revision {revision}: {error:#}"
                ),
            );
            (config, Origin::Disk, revision)
        }
    };
    Ok(Opened {
        config,
        options,
        local,
        origin,
        revision,
    })
}

async fn fetch(location: &Location) -> anyhow::Result<Stored> {
    let found = async {
        let mut store = Store::connect(location).await?;
        Ok::<_, StoreError>(store.get(&location.key).await?.0)
    };
    found.await?.ok_or_else(|| {
        anyhow!(
            "there is no document under {}; make one with `weir config push`",
            location.key
        )
    })
}

fn usable(options: &Options, local: &Local, found: &Stored) -> Result<Config, ConfigError> {
    let shared = Shared::parse(&found.text).map_err(|problem| Problems(vec![problem]));
    let config = shared.map(|shared| local.with(shared));
    let checked = config.and_then(|config| config.check().map(|()| config));
    checked.map_err(|problems| ConfigError::Invalid {
        file: options.location.to_string().into(),
        problems,
    })
}

fn from_disk(options: &Options, local: &Local) -> anyhow::Result<(Config, i64)> {
    let copy = Copy::read(&options.copy, &options.location.key)?;
    let copy = copy.with_context(|| format!("there is none at {}", options.copy.display()))?;
    let config = local.with(copy.document);
    config.check().map_err(|problems| ConfigError::Invalid {
        file: options.copy.clone(),
        problems,
    })?;
    Ok((config, copy.revision))
}
