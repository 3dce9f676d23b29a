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

pub use self::node::{Node, Options, PeersView, SyncPeerView, Tables, spawn};
