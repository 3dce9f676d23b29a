//! Incremental updates of the Internet checksum (RFC 1071, RFC 1624).
//!
//! One's complement sums do not depend on byte order, so everything here works on words as
//! they stand in the packet.

/// What a rewrite changes in a checksum: the sum of the new words and of the complements of
/// the old ones. Folded only when it is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// A rewrite of nothing.
    pub const NONE: Self = Self(0);

    /// A 16-bit word at an even offset was `old` and is `new`.
    #[inline(always)]
    pub const fn word16(self, old: u16, new: u16) -> Self {
        self.change(old as u64, new as u64, u16::MAX as u64)
    }

    /// A 32-bit word at an even offset was `old` and is `new`.
    #[inline(always)]
    pub const fn word32(self, old: u32, new: u32) -> Self {
        self.low32(old as u64, new as u64)
    }

    /// The same where they stand in the lower halves of words whose upper halves are zero.
    #[inline(always)]
    pub const fn low32(self, old: u64, new: u64) -> Self {
        self.change(old, new, u32::MAX as u64)
    }

    /// `old` and `new` are at most `max`. Subtracted, not complemented: that takes two instructions
    /// more on BPF.
    #[inline(always)]
    const fn change(self, old: u64, new: u64, max: u64) -> Self {
        Self(self.0.wrapping_add(new).wrapping_add(max).wrapping_sub(old))
    }

    /// A 64-bit word at an even offset was `old` and is `new`.
    #[inline(always)]
    pub const fn word64(self, old: u64, new: u64) -> Self {
        self.word32(old as u32, new as u32)
            .word32((old >> 32) as u32, (new >> 32) as u32)
    }

    /// Both changes. Exact for up to 2^14 words in all.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum field that was `check`, after the change (RFC 1624, equation 3).
    #[inline(always)]
    pub const fn apply(self, check: u16) -> u16 {
        !fold(self.word16(check, 0).0)
    }

    /// The same for UDP, where a computed zero is sent as all ones (RFC 768). The caller
    /// leaves a field of zero alone: there is no checksum then.
    #[inline(always)]
    pub const fn apply_udp(self, check: u16) -> u16 {
        match self.apply(check) {
            0 => 0xffff,
            check => check,
        }
    }
}

/// The sum of the words of a new header: of up to 2^15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Of nothing.
    pub const NONE: Self = Self(0);

    /// And a 16-bit word at an even offset.
    #[inline(always)]
    pub const fn word16(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// And a 32-bit word at an even offset.
    #[inline(always)]
    pub const fn word32(self, word: u32) -> Self {
        Self(self.0 + word as u64)
    }

    /// And a 64-bit word at an even offset.
    #[inline(always)]
    pub const fn word64(self, word: u64) -> Self {
        self.word32(word as u32).word32((word >> 32) as u32)
    }

    /// The checksum of everything summed up, the field itself taken as zero.
    #[inline(always)]
    pub const fn checksum(self) -> u16 {
        !fold(self.0)
    }
}

/// The one's complement sum of the 16-bit words of `sum`, which is below 2^47.
#[inline(always)]
const fn fold(sum: u64) -> u16 {
    // At most 2^31 + 2^16, then two times 0xffff, then 0xffff.
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}
