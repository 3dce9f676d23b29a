//! Addresses that two balancers share: exactly one holds them, whatever fails.

mod capture;
mod failover;
mod keepalived;
mod priority;
mod routes;
mod scene;
mod split;
mod sync;
mod takeover;
