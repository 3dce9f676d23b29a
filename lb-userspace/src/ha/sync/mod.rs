//! Telling other nodes of flows, so that connections survive this one.

mod message;
mod pull;
pub mod record;
pub mod seal;
pub mod session;
#[cfg(test)]
mod tests;
