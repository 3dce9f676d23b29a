//! Headers that a proxy must take away, put right or add.

pub mod authority;
pub mod connection;
pub mod forwarded;
pub mod list;
pub mod request_id;
pub mod trace;
pub mod via;
