//! Real servers on the lab's backends.

mod daemon;
mod echo;
mod nginx;
mod postgres;

pub use daemon::Daemon;
pub use echo::{Echo, echo};
pub use nginx::nginx;
pub use postgres::postgres;
