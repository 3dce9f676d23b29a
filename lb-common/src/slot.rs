//! A slot of a service's ring: which backend owns it, and whether it is settled.

/// A slot as one aligned 64-bit word, so that no packet ever sees half of one: `current` in
/// bits 0 to 30, `base` in bits 31 to 61, `track` in bit 62; bit 63 is zero.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Slot(pub u64);

/// Highest backend id that a slot can hold.
pub const MAX_BACKEND: u32 = (1 << 31) - 1;

impl Slot {
    /// A slot whose flows all belong to `backend`; 0: to nobody.
    pub const fn stable(backend: u32) -> Self {
        Self::new(backend, backend, false)
    }

    /// A slot with every part given. Ids above [`MAX_BACKEND`] are cut off.
    pub const fn new(base: u32, current: u32, track: bool) -> Self {
        Self(
            (current & MAX_BACKEND) as u64
                | (((base & MAX_BACKEND) as u64) << 31)
                | ((track as u64) << 62),
        )
    }

    /// The backend of new flows; 0: none.
    pub const fn current(self) -> u32 {
        (self.0 as u32) & MAX_BACKEND
    }

    /// The backend of flows that were here before the slot changed; 0: none.
    pub const fn base(self) -> u32 {
        ((self.0 >> 31) as u32) & MAX_BACKEND
    }

    /// Whether flows of this slot are remembered.
    pub const fn track(self) -> bool {
        self.0 >> 62 & 1 == 1
    }
}
