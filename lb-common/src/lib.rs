//! What Weir's XDP program and its agent share: everything that can be right or wrong
//! without a kernel lives and is tested here.
#![no_std]

#[cfg(feature = "maglev")]
extern crate alloc;

pub mod abi;
pub mod checksum;
pub mod frame;
pub mod full_nat;
pub mod hash;
#[cfg(feature = "maglev")]
pub mod maglev;
pub mod packet;
pub mod reason;
pub mod rewrite;
pub mod slot;
pub mod steer;
pub mod tables;
