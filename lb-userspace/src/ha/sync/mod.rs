//! Telling other nodes of flows, so that connections survive this one.

pub mod key;
mod message;
mod node;
mod pull;
pub mod record;
pub mod seal;
pub mod session;
#[cfg(test)]
mod tests;

use std::{net::UdpSocket, sync::Arc};

pub use self::{
    node::{Node, Options, PeersView, Tables, listen, spawn},
    session::Progress,
};
use crate::config::ha::Ha;

/// Speaks with the nodes that are to know this one's flows, if there are any and these are
/// tables to tell of. `synced`: this agent goes on with the flows of one that had the others'.
///
/// # Errors
///
/// The key's, or as [`spawn`].
pub fn start(
    config: &Ha,
    tables: Option<Arc<dyn Tables>>,
    socket: Option<UdpSocket>,
    synced: bool,
) -> anyhow::Result<Option<Node>> {
    let (Some(sync), Some(tables), Some(socket)) = (&config.sync, tables, socket) else {
        return Ok(None);
    };
    let options = Options {
        peers: sync.peers.clone(),
        key: key::read(&sync.key_file)?,
    };
    spawn(&options, socket, tables, synced).map(Some)
}
