//! What Weir's tests that need a kernel share.

pub mod agent;
pub mod certificate;
pub mod conversations;
pub mod cpu;
pub mod executable;
pub mod held;
pub mod https;
pub mod memory;
pub mod opened;
pub mod probe;
pub mod scene;
pub mod web;
pub mod wire;
