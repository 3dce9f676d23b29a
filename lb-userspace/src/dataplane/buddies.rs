//! Blocks of an endless row of numbers: a power of two of them, at a multiple of their size.
//! A block that is freed joins its buddy, the other half of the next larger one.

use std::collections::BTreeSet;

/// The free blocks of each size, by their first number.
#[derive(Debug)]
pub(crate) struct Buddies<const SIZES: usize> {
    free: [BTreeSet<u32>; SIZES],
}

impl<const SIZES: usize> Buddies<SIZES> {
    /// Nothing is free yet.
    pub(crate) fn new() -> Self {
        Self {
            free: std::array::from_fn(|_| BTreeSet::new()),
        }
    }

    /// Takes the first of the smallest free blocks that hold `1 << log2` numbers, and frees
    /// what it has too much.
    pub(crate) fn take(&mut self, log2: usize) -> Option<u32> {
        let fitting = self.free.iter_mut().enumerate().skip(log2);
        let (found, first) = fitting
            .filter_map(|(size, blocks)| Some((size, blocks.pop_first()?)))
            .next()?;
        for size in log2..found {
            self.free[size].insert(first + (1 << size));
        }
        Some(first)
    }

    /// Frees a block; returns the first number of the largest kind that it is part of now, if
    /// all of that is free. The caller may [`Buddies::forget`] it.
    pub(crate) fn give_back(&mut self, mut first: u32, log2: usize) -> Option<u32> {
        for size in log2..SIZES - 1 {
            let buddy = first ^ (1 << size);
            if !self.free[size].remove(&buddy) {
                self.free[size].insert(first);
                return None;
            }
            first &= buddy;
        }
        self.free[SIZES - 1].insert(first);
        Some(first)
    }

    /// Takes a free block of the largest kind out of the row.
    pub(crate) fn forget(&mut self, first: u32) {
        self.free[SIZES - 1].remove(&first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_are_split_and_joined() {
        let mut blocks = Buddies::<4>::new();
        assert_eq!(blocks.take(0), None);
        assert_eq!(blocks.give_back(8, 3), Some(8));
        assert_eq!(
            (blocks.take(0), blocks.take(1), blocks.take(1)),
            (Some(8), Some(10), Some(12))
        );
        assert_eq!(blocks.take(2), None);
        assert_eq!(blocks.give_back(10, 1), None);
        assert_eq!(blocks.give_back(12, 1), None);
        assert_eq!(blocks.take(2), Some(12));
        assert_eq!(blocks.give_back(12, 2), None);
        assert_eq!(blocks.give_back(8, 0), Some(8));
        blocks.forget(8);
        assert_eq!(blocks.take(0), None);
    }

    proptest! {
        #[test]
        fn no_number_is_in_two_blocks(steps in prop::collection::vec((0usize..5, any::<prop::sample::Index>()), 1..200)) {
            const SIZES: usize = 5;
            let mut blocks = Buddies::<SIZES>::new();
            blocks.give_back(0, SIZES - 1);
            blocks.give_back(16, SIZES - 1);
            let mut taken: Vec<(u32, usize)> = Vec::new();
            for (log2, index) in steps {
                if log2 == 4 && !taken.is_empty() {
                    let (first, log2) = taken.swap_remove(index.index(taken.len()));
                    blocks.give_back(first, log2);
                } else if let Some(first) = blocks.take(log2) {
                    prop_assert_eq!(first % (1 << log2), 0);
                    for (other, size) in &taken {
                        prop_assert!(first + (1 << log2) <= *other || other + (1 << size) <= first);
                    }
                    taken.push((first, log2));
                }
            }
            for (first, log2) in taken {
                blocks.give_back(first, log2);
            }
            prop_assert_eq!((blocks.take(4), blocks.take(4)), (Some(0), Some(16)));
        }
    }
}
