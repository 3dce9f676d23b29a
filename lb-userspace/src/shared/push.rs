//! Putting a document where nodes look for it.

use anyhow::{Context as _, bail};

use super::{Location, store::Store};
use crate::config::Shared;

/// How often somebody else may be faster.
const ATTEMPTS: u32 = 5;

/// Puts a document into the place of what is there, if anything; the revision in which it is
/// written. Nodes that can use it do.
///
/// # Errors
///
/// etcd's; or that there is one already, unless it is to be replaced.
pub async fn push(location: &Location, document: &Shared, replace: bool) -> anyhow::Result<i64> {
    let text = document.to_json()?;
    let mut store = Store::connect(location).await.context("etcd")?;
    for _ in 0..ATTEMPTS {
        let (found, _) = store.get(&location.key).await.context("etcd")?;
        let last = found.map_or(0, |found| found.revision);
        if last != 0 && !replace {
            bail!(
                "there is a document under {} already, of revision {last}: use --replace to put \
                 this one in its place",
                location.key
            );
        }
        let put = store.replace(&location.key, last, text.clone()).await;
        if let Some(revision) = put.context("etcd")? {
            return Ok(revision);
        }
    }
    bail!("others change {} all the time", location.key)
}
