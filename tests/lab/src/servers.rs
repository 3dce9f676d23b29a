//! Real servers on the lab's backends.

mod daemon;
mod echo;
mod etcd;
mod nginx;
mod postgres;

pub use daemon::Daemon;
pub use echo::{Echo, echo};
pub use etcd::etcd;
pub use nginx::nginx;
pub use postgres::postgres;
