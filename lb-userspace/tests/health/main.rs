//! The health checker against real sockets on loopback addresses.

mod cost;
mod descriptors;
mod http;
mod schedule;
mod support;
mod targets;
mod tcp;
