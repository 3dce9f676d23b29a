//! Weir: the agent that owns the configuration, watches health and keeps the data path's
//! maps true, and the command line that talks to it.

pub mod agent;
pub mod api;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod desired;
pub mod events;
pub mod ha;
pub mod health;
pub mod next_hop;
pub mod proxy;
pub mod shared;
pub mod state;
pub mod takeover;
