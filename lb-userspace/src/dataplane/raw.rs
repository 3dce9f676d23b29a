//! The shared layouts as keys and values of aya's typed maps.

use lb_common::abi::Plain;

/// A shared layout, as aya wants it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw<T>(pub T);

// SAFETY: `Plain` types have no padding and are valid for any bits.
unsafe impl<T: Plain> aya::Pod for Raw<T> {}
