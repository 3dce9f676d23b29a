//! An array in front of a hash map of endpoints: one look at it answers nearly always, for a
//! few nanoseconds where the map takes tens. Keys that share a place in the array are left to
//! the map, so nothing depends on there being none.

use core::ptr::from_ref;

use crate::abi::{Address, Front, ServiceKey};

/// [`Front::word`] where the map has no key of this place.
pub const ABSENT: u64 = 0;
/// [`Front::word`] where the map has several, or its entry is being changed: ask the map.
pub const SHARED: u64 = 1;

/// What the array knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The map does not have it.
    Absent,
    /// The map has it, with this value.
    Value(u32),
    /// The map knows.
    AskMap,
}

/// Multipliers of good generators: one of Steele and Vigna (2021), and Knuth's of MMIX. They spread
/// also what differs in several bytes by steps, such as hosts and their ports.
const FIRST: u64 = 0xaf25_1af3_b0f0_25b5;
const SECOND: u64 = 6_364_136_223_846_793_005;

/// Where in an array a key has its place, by the number of bits that its place does not have of
/// 64: `64 - n` for `1 << n` entries. Whoever configures services chooses the keys, so no secret is
/// needed.
#[inline(always)]
pub const fn place(key: &ServiceKey, shift: u64) -> u64 {
    // Multiply-shift (Dietzfelbinger et al. 1997): a sum's high bits know of all bits of the words.
    let first = (key.address[0] ^ ((key.rest() as u64) << 32)).wrapping_mul(FIRST);
    first.wrapping_add(key.address[1].wrapping_mul(SECOND)) >> shift
}

/// [`place`]'s number for an array of `entries`, a power of two above one.
pub const fn shift(entries: u32) -> u64 {
    (u64::BITS - entries.trailing_zeros()) as u64
}

/// The entry of the only key at its place.
pub const fn entry(key: &ServiceKey, value: u32) -> Front {
    Front {
        address: key.address,
        word: ((value as u64) << 32) | key.rest() as u64,
        reserved: 0,
    }
}

/// What the entry at the key's place says of it.
#[inline(always)]
pub fn look(entry: &Front, key: &ServiceKey) -> Found {
    // SAFETY: a reference's field; volatile, since the agent writes it meanwhile.
    let read = || unsafe { from_ref(&entry.word).read_volatile() };
    let word = read();
    if word as u32 != key.rest() || entry.address != key.address {
        return match word {
            SHARED => Found::AskMap,
            _ => Found::Absent,
        };
    }
    // The address was of this word only if the word is still there.
    match read() == word {
        true => Found::Value((word >> 32) as u32),
        false => Found::AskMap,
    }
}

impl ServiceKey {
    /// What it has beside its address. Never [`ABSENT`] or [`SHARED`]: the family is the
    /// highest byte, and not zero.
    #[inline(always)]
    pub const fn rest(&self) -> u32 {
        self.port as u32 | (self.protocol as u32) << 16 | (self.family as u32) << 24
    }

    /// The key with this address and [`ServiceKey::rest`].
    #[inline(always)]
    pub const fn new(address: Address, rest: u32) -> Self {
        Self {
            address,
            port: rest as u16,
            protocol: (rest >> 16) as u8,
            family: (rest >> 24) as u8,
            reserved: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{IPV4, IPV6};

    fn key(address: [u64; 2], port: u16, family: u8) -> ServiceKey {
        ServiceKey {
            address,
            port: port.to_be(),
            protocol: 6,
            family,
            reserved: 0,
        }
    }

    #[test]
    fn an_entry_knows_its_key_and_no_other() {
        let here = key([0x0100_a8c0, 0], 80, IPV4);
        let entry = entry(&here, 7);
        assert_eq!(look(&entry, &here), Found::Value(7));
        assert_eq!(ServiceKey::new(here.address, here.rest()), here);
        for other in [
            key([0x0200_a8c0, 0], 80, IPV4),
            key([0x0100_a8c0, 1], 80, IPV4),
            key([0x0100_a8c0, 0], 81, IPV4),
            key([0x0100_a8c0, 0], 80, IPV6),
            ServiceKey {
                protocol: 17,
                ..here
            },
        ] {
            assert_eq!(look(&entry, &other), Found::Absent, "{other:?}");
        }
        let shared = Front {
            word: SHARED,
            ..entry
        };
        assert_eq!(look(&shared, &here), Found::AskMap);
        let absent = Front {
            word: ABSENT,
            ..entry
        };
        assert_eq!(look(&absent, &here), Found::Absent);
    }

    #[test]
    fn keys_in_a_row_are_spread() {
        const ENTRIES: u32 = 1 << 14;
        let spread = |keys: &mut dyn Iterator<Item = ServiceKey>| {
            let mut places = [false; ENTRIES as usize];
            keys.for_each(|key| places[place(&key, shift(ENTRIES)) as usize] = true);
            places.iter().filter(|taken| **taken).count()
        };
        // Of 4,096 keys at random 3,624 places would be taken.
        let hosts = (0..4096u32).map(|host| key([u64::from(host.to_be()), 0], 80, IPV4));
        let ports = (0..4096).map(|port| key([0x0100_a8c0, 0], port, IPV4));
        let both =
            (0..4096u32).map(|n| key([u64::from((n >> 4).to_be()), 0], 80 + n as u16 % 16, IPV4));
        let last = (0..4096u64).map(|host| key([0xb80d_0120, host.to_be()], 80, IPV6));
        let subnets = (0..4096u64).map(|net| key([net.to_be() | 0xb80d_0120, 1], 80, IPV6));
        for (what, keys) in [
            ("hosts", &mut { hosts } as &mut dyn Iterator<Item = _>),
            ("ports", &mut { ports }),
            ("ports of hosts", &mut { both }),
            ("IPv6 hosts", &mut { last }),
            ("IPv6 subnets", &mut { subnets }),
        ] {
            let taken = spread(keys);
            assert!(taken > 3400, "{what}: {taken} places");
        }
    }
}
