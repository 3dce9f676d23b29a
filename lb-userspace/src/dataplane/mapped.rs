//! Arrays that are written in place, through shared memory: a word changes in nanoseconds,
//! and no packet sees half of it.

use std::{
    io,
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{MapData, MapError};
use lb_common::abi::Plain;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// A new array of `entries` words of 64 bits, all zero.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn words(name: &str, entries: u32) -> anyhow::Result<(MapData, MappedArray<u64>)> {
    let map = array(name, size_of::<u64>() as u32, entries)?;
    let mapped = MappedArray::new(map.fd(), entries)?;
    Ok((map, mapped))
}

/// A new array of one value, which is `entries` values in a row, all zero.
///
/// # Errors
///
/// The kernel's, in particular where it is older than Linux 6.12 and they take more than 4 MiB.
pub(crate) fn one_value<T: Plain>(
    name: &str,
    entries: u32,
) -> anyhow::Result<(MapData, MappedArray<T>)> {
    let map = array(name, size_of::<T>() as u32 * entries, 1)?;
    let mapped = MappedArray::new(map.fd(), entries)?;
    Ok((map, mapped))
}

fn array(name: &str, value_size: u32, entries: u32) -> Result<MapData, MapError> {
    MapData::create(
        aya_obj::Map::new_from_params(
            BPF_MAP_TYPE_ARRAY,
            size_of::<u32>() as u32,
            value_size,
            entries,
            BPF_F_MMAPABLE,
        ),
        name,
        None,
    )
}

/// A BPF array with `BPF_F_MMAPABLE`, mapped into this process. Keeps the array alive.
pub struct MappedArray<T> {
    words: NonNull<AtomicU64>,
    bytes: usize,
    entries: u32,
    entry: PhantomData<T>,
}

// SAFETY: all access is through atomic words.
unsafe impl<T> Send for MappedArray<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for MappedArray<T> {}

impl<T: Plain> MappedArray<T> {
    const WORDS: usize = size_of::<T>() / 8;

    /// Maps the array behind `fd`, which has `entries` values of type `T`.
    ///
    /// # Errors
    ///
    /// The kernel's, where the array is smaller or cannot be mapped.
    pub fn new(fd: impl AsFd, entries: u32) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8), "values are whole words") };
        let bytes = size_of::<T>() * entries as usize;
        let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                fd,
                0,
            )
        }?;
        Ok(Self {
            words: start.cast(),
            bytes,
            entries,
            entry: PhantomData,
        })
    }

    /// Number of values.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    fn word(&self, index: u32, word: usize) -> &AtomicU64 {
        assert!(index < self.entries && word < Self::WORDS, "out of range");
        // SAFETY: inside of the mapping, which lives as long as `self`.
        unsafe { self.words.add(index as usize * Self::WORDS + word).as_ref() }
    }

    /// Writes a value word by word, in order; words that are equal are left alone.
    ///
    /// # Panics
    ///
    /// Where `index` is out of range: callers take it from the array's own allocator.
    pub fn write(&self, index: u32, value: &T) {
        for word in 0..Self::WORDS {
            // SAFETY: `Plain` values are whole words of initialised bytes.
            let new = unsafe {
                std::ptr::from_ref(value)
                    .cast::<u64>()
                    .add(word)
                    .read_unaligned()
            };
            let place = self.word(index, word);
            if place.load(Ordering::Relaxed) != new {
                place.store(new, Ordering::Release);
            }
        }
    }

    /// The value as it is now; its words may be from different moments.
    pub fn read(&self, index: u32) -> T {
        let mut value = std::mem::MaybeUninit::<T>::uninit();
        for word in 0..Self::WORDS {
            let now = self.word(index, word).load(Ordering::Acquire);
            // SAFETY: inside of `value`.
            unsafe {
                value
                    .as_mut_ptr()
                    .cast::<u64>()
                    .add(word)
                    .write_unaligned(now)
            };
        }
        // SAFETY: every word was written, and any bits are a `Plain` value.
        unsafe { value.assume_init() }
    }
}

impl MappedArray<u64> {
    /// Adds to a counter that packets change too, atomically and wrapping around.
    ///
    /// # Panics
    ///
    /// As [`MappedArray::write`].
    pub(crate) fn add(&self, index: u32, by: u64) {
        self.word(index, 0).fetch_add(by, Ordering::Relaxed);
    }
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, to which no reference is left.
        if let Err(error) = unsafe { munmap(self.words.cast(), self.bytes) } {
            tracing::warn!("unmapping a BPF array: {error}");
        }
    }
}
