//! What Weir's XDP program and its agent share: everything that can be right or wrong
//! without a kernel lives and is tested here.
#![no_std]

pub mod abi;
pub mod reason;
pub mod slot;
