//! Tables whose address is part of the program: reaching into one takes no look-up, and nothing
//! goes through memory on the way. The agent makes the maps, as long as its limits ask for.
//!
//! An index must be seen to be below the number of entries that there are: else the verifier
//! refuses the program.

use core::{arch::asm, cell::UnsafeCell, mem::MaybeUninit};

use lb_common::abi::{Backend, Front, Plain, Service, direct};

/// A table of at most `N` entries.
#[repr(transparent)]
struct Table<T, const N: usize>(UnsafeCell<MaybeUninit<[T; N]>>);

// SAFETY: entries are integers, which the agent writes a word at a time.
unsafe impl<T: Plain, const N: usize> Sync for Table<T, N> {}

macro_rules! tables {
    ($($(#[$doc:meta])* $get:ident: $entry:ty, $entries:ident, $section:literal;)+) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $get(index: u64) -> &'static $entry {
            #[unsafe(link_section = $section)]
            static TABLE: Table<$entry, { direct::$entries as usize }> =
                Table(UnsafeCell::new(MaybeUninit::zeroed()));
            let start: *const $entry;
            // By an instruction of its own: the compiler, which sees nobody write, would know what
            // stands there.
            // SAFETY: loads an address.
            unsafe {
                asm!("{0} = {1} ll", out(reg) start, sym TABLE, options(pure, nomem, nostack));
            }
            // SAFETY: inside of the table, or the verifier objects; any bits are a value.
            unsafe { &*start.add(index as usize) }
        }
    )+};
}

tables! {
    /// What stands in front of [`crate::maps::SERVICES_BY_KEY`] at a place.
    services_front: Front, SERVICES_FRONT, ".bss.services_front";
    /// A service by its index.
    service: Service, SERVICES, ".bss.services";
    /// One of the first slots of all rings; the others are in [`crate::maps::SEGMENTS`].
    slot: u64, SLOTS, ".bss.slots";
    /// One of the first backends by id; the others are in [`crate::maps::MORE_BACKENDS`].
    backend: Backend, BACKENDS, ".bss.backends";
}
