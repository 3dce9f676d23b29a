//! Weir's lab: network namespaces on this machine with a client, a balancer's place, real
//! servers and load. The demo, the tests and the benchmarks run in it.
//!
//! ```no_run
//! use lab::{Lab, Plan, load::{Load, Work}, servers};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::new(&Plan::default())?;
//! let _nginx = servers::nginx(&lab.backends()[0], 80)?;
//! let target = (lab.backends()[0].addresses.v4, 80).into();
//! let results = Load::http(lab.client(), Work::new(target, 1000))?.finish()?;
//! assert_eq!(results.failed, 0);
//! # Ok(())
//! # }
//! ```

mod address;
mod cargo;
mod gate;
pub mod load;
mod name;
mod namespace;
mod network;
mod pass;
mod ping;
mod plan;
mod process;
mod retry;
pub mod servers;
mod task;
mod wiring;

pub use address::Pair;
pub use cargo::cargo;
pub use name::{remove, remove_leftovers};
pub use namespace::{Namespace, run};
pub use network::{Backend, Balancer, Lab};
pub use ping::ping;
pub use plan::{Plan, Wiring};
pub use process::Process;
pub use retry::retry;
