//! What Weir's XDP program and its agent share: everything that can be right or wrong
//! without a kernel lives and is tested here.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod abi;
pub mod answer;
pub mod aside;
pub mod checksum;
pub mod fragment;
pub mod frame;
pub mod front;
pub mod full_nat;
pub mod generate;
pub mod hash;
pub mod icmp;
#[cfg(feature = "alloc")]
pub mod maglev;
#[cfg(feature = "alloc")]
pub mod memory;
pub mod packet;
pub mod reason;
pub mod rewrite;
#[cfg(feature = "alloc")]
pub mod ring;
pub mod selection;
pub mod slot;
pub mod steer;
pub mod tables;
