//! Incremental checksums against a full recomputation (RFC 1071).

use lb_common::checksum::Delta;
use proptest::prelude::*;

/// The checksum field that `words` should have, computed from scratch.
fn full(words: &[u16]) -> u16 {
    let mut sum: u32 = words.iter().map(|&word| u32::from(word)).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Both zeroes of one's complement are the same sum.
fn same(one: u16, other: u16) -> bool {
    one == other || (one.is_multiple_of(0xffff) && other.is_multiple_of(0xffff))
}

proptest! {
    #[test]
    fn changed_words_give_the_recomputed_checksum(
        mut words in prop::collection::vec(any::<u16>(), 12..40),
        port in any::<u16>(),
        address in any::<u32>(),
        long in any::<u64>(),
    ) {
        let check = full(&words);
        let old_address = u32::from(words[0]) | (u32::from(words[1]) << 16);
        let old_long = (2..6).rev().fold(0u64, |all, at| (all << 16) | u64::from(words[at]));
        let delta = Delta::NONE
            .word32(old_address, address)
            .word64(old_long, long)
            .and(Delta::NONE.word16(words[6], port));
        words[0] = address as u16;
        words[1] = (address >> 16) as u16;
        for (at, place) in (2..6).zip([0, 16, 32, 48]) {
            words[at] = (long >> place) as u16;
        }
        words[6] = port;
        prop_assert!(same(delta.apply(check), full(&words)));
    }

    #[test]
    fn an_unchanged_word_changes_nothing(check in any::<u16>(), word in any::<u32>()) {
        prop_assert!(same(Delta::NONE.word32(word, word).apply(check), check));
    }

    #[test]
    fn udp_never_sends_zero(check in 1u16.., old in any::<u32>(), new in any::<u32>()) {
        prop_assert_ne!(Delta::NONE.word32(old, new).apply_udp(check), 0);
    }
}

#[test]
fn the_example_of_rfc_1624() {
    // Section 4: a checksum of 0xdd2f, where 0x5555 becomes 0x3285, becomes 0x0000.
    assert_eq!(Delta::NONE.word16(0x5555, 0x3285).apply(0xdd2f), 0x0000);
}
