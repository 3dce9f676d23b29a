//! A new agent takes over from one that runs, and no connection is refused or lost.
//!
//! ```text
//! the new one                                the one that runs
//!   Ask ───────────────────────────────────▶ stops the API, and changes of the data path
//!     ◀──────────── Sockets, Known, Offered   lets go of the lock of `agent.pin`
//!   loads, applies, attaches its program     serves on
//!   accepts from the same sockets
//!   Attached ──────────────────────────────▶ leaves VIPs, VRRP and the other nodes as they are
//!     ◀──────────────────────────────── Yours
//!   goes on with these                       accepts no more, ends what is under way, and exits
//! ```
//!
//! They speak over a Unix socket beside the admin API's. Until `Attached` has come, the one that
//! runs goes on as before when the other fails, says so or dies. It also does when the other says
//! nothing, if it can have the lock back: who has that has the data path, and nobody else can get
//! it.

mod give;
mod message;
pub mod successor;
mod take;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

pub use self::{
    give::{Door, Given, Sockets, give},
    take::{Link, Taken, take},
};

/// What both must speak.
const VERSION: u32 = 1;

/// Bytes by which the socket's path is longer than the admin API's.
pub(crate) const SUFFIX: &str = ".takeover";

/// Where an agent with this admin socket is asked.
fn path(admin: &Path) -> PathBuf {
    let mut path = OsString::from(admin);
    path.push(SUFFIX);
    path.into()
}
