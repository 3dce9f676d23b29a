//! Real servers on the lab's backends.

mod daemon;
mod echo;
mod etcd;
mod nginx;
mod postgres;

pub use daemon::{Daemon, program};
pub use echo::{Echo, echo};
pub use etcd::etcd;
pub use nginx::{nginx, nginx_with};
pub use postgres::postgres;
