//! The only door to a packet's bytes.

use core::marker::PhantomData;

/// A frame that can be read, written and resized at its front. The XDP program implements
/// it over the driver's buffer, host tests over a vector: both run the same pipeline.
pub trait Frame {
    /// Length in bytes, from the Ethernet header on.
    fn length(&self) -> usize;

    /// The `N` bytes from `offset` on, if the frame reaches that far.
    fn window<const N: usize>(&self, offset: usize) -> Option<Window<'_, N>>;

    /// The same, to write to.
    fn window_mut<const N: usize>(&mut self, offset: usize) -> Option<WindowMut<'_, N>>;

    /// Adds `by` bytes of any content before the frame. Takes `&mut self`, so that no window
    /// outlives it. False: no room, the frame is unchanged.
    fn grow_front(&mut self, by: usize) -> bool;

    /// Removes `by` bytes from the front. False: not that many, the frame is unchanged.
    fn shrink_front(&mut self, by: usize) -> bool;

    /// Cuts the frame to `length` bytes, or to the 60 that Ethernet asks for; one that is not
    /// longer stays as it is.
    fn truncate(&mut self, length: usize);
}

/// The shortest frame that every driver sends.
pub const SHORTEST: usize = 60;

/// A frame in ordinary memory, for tests on the host.
#[cfg(feature = "alloc")]
impl Frame for alloc::vec::Vec<u8> {
    fn length(&self) -> usize {
        self.len()
    }

    fn window<const N: usize>(&self, offset: usize) -> Option<Window<'_, N>> {
        let bytes = self.get(offset..offset.checked_add(N)?)?;
        // SAFETY: N bytes, borrowed as long as the window.
        Some(unsafe { Window::new(bytes.as_ptr()) })
    }

    fn window_mut<const N: usize>(&mut self, offset: usize) -> Option<WindowMut<'_, N>> {
        let bytes = self.get_mut(offset..offset.checked_add(N)?)?;
        // SAFETY: N bytes, borrowed mutably as long as the window.
        Some(unsafe { WindowMut::new(bytes.as_mut_ptr()) })
    }

    fn grow_front(&mut self, by: usize) -> bool {
        self.splice(..0, core::iter::repeat_n(0, by));
        true
    }

    fn shrink_front(&mut self, by: usize) -> bool {
        let there = by <= self.len();
        self.drain(..if there { by } else { 0 });
        there
    }

    fn truncate(&mut self, length: usize) {
        Self::truncate(self, length.max(SHORTEST));
    }
}

/// `N` bytes of a frame, checked once; reads at constant offsets are checked when compiling.
#[derive(Clone, Copy)]
pub struct Window<'a, const N: usize> {
    start: *const u8,
    frame: PhantomData<&'a [u8; N]>,
}

/// [`Window`], to write to.
pub struct WindowMut<'a, const N: usize> {
    start: *mut u8,
    frame: PhantomData<&'a mut [u8; N]>,
}

/// Integers that may stand at any offset of a packet, as they stand there (network order).
pub trait Word: Copy {}
impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}

impl<const N: usize> Window<'_, N> {
    /// # Safety
    ///
    /// `start` points at `N` bytes that stay readable for the window's lifetime.
    #[inline(always)]
    pub unsafe fn new(start: *const u8) -> Self {
        Self {
            start,
            frame: PhantomData,
        }
    }

    /// The integer at `OFFSET`, bytes as on the wire.
    #[inline(always)]
    pub fn get<T: Word, const OFFSET: usize>(&self) -> T {
        const { assert!(OFFSET + size_of::<T>() <= N, "outside of the window") };
        // SAFETY: in bounds by the assertion and the constructor's promise.
        unsafe { load(self.start.add(OFFSET).cast()) }
    }
}

impl<const N: usize> Window<'_, N> {
    /// Gives all its words of 32 bits, bytes as on the wire, to `fold`, one after the other.
    #[inline(always)]
    pub fn fold_words<A>(&self, start: A, fold: impl Fn(A, u32) -> A) -> A {
        const { assert!(N.is_multiple_of(4), "whole words") };
        let mut result = start;
        let mut offset = 0;
        while offset < N {
            // SAFETY: in bounds by the loop's condition and the constructor's promise.
            result = fold(result, unsafe { load(self.start.add(offset).cast()) });
            offset += 4;
        }
        result
    }
}

impl<const N: usize> WindowMut<'_, N> {
    /// # Safety
    ///
    /// `start` points at `N` bytes that stay readable and writable, and are reached through
    /// nothing else, for the window's lifetime.
    #[inline(always)]
    pub unsafe fn new(start: *mut u8) -> Self {
        Self {
            start,
            frame: PhantomData,
        }
    }

    /// The integer at `OFFSET`, bytes as on the wire.
    #[inline(always)]
    pub fn get<T: Word, const OFFSET: usize>(&self) -> T {
        const { assert!(OFFSET + size_of::<T>() <= N, "outside of the window") };
        // SAFETY: in bounds by the assertion and the constructor's promise.
        unsafe { load(self.start.add(OFFSET).cast_const().cast()) }
    }

    /// Writes the integer at `OFFSET`, bytes as on the wire.
    #[inline(always)]
    pub fn set<T: Word, const OFFSET: usize>(&mut self, value: T) {
        const { assert!(OFFSET + size_of::<T>() <= N, "outside of the window") };
        // SAFETY: in bounds by the assertion and the constructor's promise.
        unsafe { store(self.start.add(OFFSET).cast(), value) }
    }
}

impl<const N: usize> WindowMut<'_, N> {
    /// Writes all its bytes; there are whole words of 64 bits.
    #[inline(always)]
    pub fn copy_from(&mut self, bytes: &[u8; N]) {
        const { assert!(N.is_multiple_of(8), "whole words") };
        let mut offset = 0;
        while offset < N {
            // SAFETY: in bounds by the loop's condition; readable by the reference, writable by
            // the constructor's promise.
            unsafe {
                let word = load(bytes.as_ptr().add(offset).cast::<u64>());
                store(self.start.add(offset).cast(), word);
            }
            offset += 8;
        }
    }
}

/// # Safety
///
/// `pointer` is valid for a read of `T`, at any alignment.
#[inline(always)]
unsafe fn load<T: Word>(pointer: *const T) -> T {
    // The BPF backend turns a read without known alignment into one load a byte; the machines
    // that run BPF load at any alignment, and the verifier allows it for packets.
    #[cfg(target_arch = "bpf")]
    // SAFETY: valid by the caller's promise; alignment does not matter to BPF's loads.
    return unsafe { pointer.read() };
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: valid by the caller's promise.
    return unsafe { pointer.read_unaligned() };
}

/// # Safety
///
/// `pointer` is valid for a write of `T`, at any alignment.
#[inline(always)]
unsafe fn store<T: Word>(pointer: *mut T, value: T) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: as in `load`.
    unsafe {
        pointer.write(value)
    };
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as in `load`.
    unsafe {
        pointer.write_unaligned(value)
    };
}
