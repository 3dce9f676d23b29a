//! `weir config`: the configuration that nodes share.

use std::path::PathBuf;

use clap::Subcommand;

use crate::{
    config::Shared,
    shared::{Location, push},
};

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Check a document and put it into etcd, where agents that share it take it from.
    Push {
        /// The document: pools, services and agent.hash_key; in JSON if it begins with a brace,
        /// else in TOML.
        file: PathBuf,
        /// Where it is to be: etcd://HOST:PORT[,HOST:PORT]/KEY, or etcds:// for TLS.
        location: Location,
        /// Put it in the place of the one that is there.
        #[arg(long)]
        replace: bool,
    },
}

pub(super) async fn run(verb: Verb) -> anyhow::Result<()> {
    let Verb::Push {
        file,
        location,
        replace,
    } = verb;
    let document = Shared::load(&file)?;
    let revision = push(&location, &document, replace).await?;
    println!(
        "{}: {location} has it, in revision {revision}",
        file.display()
    );
    Ok(())
}
