//! Datagrams between nodes: sealed with a key that both have, and never taken twice.
//!
//! Each node draws a [`Boot`] at random when it starts. Greetings are sealed with a key derived
//! from the shared one and the sender's boot; everything else with one derived from both
//! boots, so that nothing recorded earlier opens after either end has started anew. A counter
//! is the nonce (RFC 8439), and shows what was lost and what comes again.

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    rand::{SecureRandom as _, SystemRandom},
};

/// What a node is called while it runs.
pub type Boot = [u8; 16];

/// The key that all nodes have.
pub type SharedKey = [u8; 32];

/// Magic, version, kind, two zeroes, boot, counter.
const HEADER: usize = 4 + 1 + 1 + 2 + size_of::<Boot>() + size_of::<u64>();
const MAGIC: [u8; 4] = *b"WEIR";
const VERSION: u8 = 1;
const TAG: usize = 16;

/// Longest datagram, in bytes: fits with its headers where the MTU is 1,500, also in a tunnel.
pub const LONGEST: usize = 1400;
/// Longest payload of a datagram, in bytes.
pub const LONGEST_PAYLOAD: usize = LONGEST - HEADER - TAG;

/// What a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Says who the sender is.
    Greeting,
    /// Is of an established session.
    Data,
}

/// What a datagram says of itself before it is opened. Not to be believed until it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is for.
    pub kind: Kind,
    /// Its sender.
    pub boot: Boot,
    /// Grows by one with each datagram of its kind and sender.
    pub counter: u64,
}

/// A new boot.
///
/// # Errors
///
/// The kernel's random generator failed.
pub fn new_boot() -> Result<Boot, ring::error::Unspecified> {
    let mut boot = Boot::default();
    SystemRandom::new().fill(&mut boot)?;
    Ok(boot)
}

/// Reads a datagram's header; `None` where it is none of ours.
pub fn header(datagram: &[u8]) -> Option<Header> {
    let (header, _) = datagram.split_first_chunk::<HEADER>()?;
    let (magic, rest) = header.split_first_chunk::<4>()?;
    let ([version, kind, 0, 0], rest) = rest.split_first_chunk::<4>()? else {
        return None;
    };
    let (boot, counter) = rest.split_first_chunk::<16>()?;
    let kind = match kind {
        0 => Kind::Greeting,
        1 => Kind::Data,
        _ => return None,
    };
    (*magic == MAGIC && *version == VERSION).then_some(Header {
        kind,
        boot: *boot,
        counter: u64::from_be_bytes(counter.try_into().ok()?),
    })
}

/// Seals, or opens, the datagrams of one kind and sender.
pub struct Seal {
    kind: Kind,
    boot: Boot,
    key: LessSafeKey,
}

impl Seal {
    /// Of the greetings of `sender`.
    pub fn greetings(shared: &SharedKey, sender: Boot) -> Self {
        Self::new(shared, Kind::Greeting, sender, &[&sender])
    }

    /// Of the data that `sender` has for `receiver`.
    pub fn data(shared: &SharedKey, sender: Boot, receiver: Boot) -> Self {
        Self::new(shared, Kind::Data, sender, &[&sender, &receiver])
    }

    fn new(shared: &SharedKey, kind: Kind, boot: Boot, info: &[&[u8]]) -> Self {
        let salt: &[u8] = match kind {
            Kind::Greeting => b"weir sync greeting 1",
            Kind::Data => b"weir sync data 1",
        };
        let secret = Salt::new(HKDF_SHA256, salt).extract(shared);
        #[expect(
            clippy::expect_used,
            reason = "fails for output beyond 255 hashes, and this is one"
        )]
        let derived = secret
            .expand(info, &CHACHA20_POLY1305)
            .expect("a key of 32 bytes");
        let key = LessSafeKey::new(UnboundKey::from(derived));
        Self { kind, boot, key }
    }

    /// A datagram. Each counter is for one datagram, and never for another.
    pub fn seal(&self, counter: u64, payload: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(HEADER + payload.len() + TAG);
        datagram.extend_from_slice(&MAGIC);
        datagram.extend_from_slice(&[VERSION, self.kind as u8, 0, 0]);
        datagram.extend_from_slice(&self.boot);
        datagram.extend_from_slice(&counter.to_be_bytes());
        let aad = Aad::from(datagram.clone());
        datagram.extend_from_slice(payload);
        let sealed = &mut datagram[HEADER..];
        #[expect(
            clippy::expect_used,
            reason = "fails for payloads beyond 256 GiB, and a datagram has 64 KiB"
        )]
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(counter), aad, sealed)
            .expect("a datagram");
        datagram.extend_from_slice(tag.as_ref());
        datagram
    }

    /// The payload of a datagram, whose [`Header`] was read; `None` where it is not of this
    /// seal, or was changed on its way.
    pub fn open<'a>(&self, counter: u64, datagram: &'a mut [u8]) -> Option<&'a [u8]> {
        let (header, sealed) = datagram.split_at_mut_checked(HEADER)?;
        let aad = Aad::from(&*header);
        self.key
            .open_in_place(nonce(counter), aad, sealed)
            .ok()
            .map(|payload| &*payload)
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Which counters have been seen (RFC 6479's idea, with a window of 128).
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The next after the highest.
    next: u64,
    /// Bit `n`: `next - 1 - n` was seen.
    window: u128,
    /// How many were seen.
    count: u64,
    /// How many were passed over by a higher one, those that came late included.
    skipped: u64,
}

impl Seen {
    /// Whether a counter is new; then it is not from now on. Those too old to tell are not.
    pub fn first_time(&mut self, counter: u64) -> bool {
        if counter == u64::MAX {
            return false;
        }
        if counter >= self.next {
            let by = counter - self.next + 1;
            self.window = match by {
                0..=127 => (self.window << by) | 1,
                _ => 1,
            };
            self.skipped += by - 1;
            self.next = counter + 1;
        } else {
            let age = self.next - 1 - counter;
            if age >= 128 || self.window >> age & 1 == 1 {
                return false;
            }
            self.window |= 1 << age;
        }
        self.count += 1;
        true
    }

    /// How many did not come, late ones excepted.
    pub fn lost(&self) -> u64 {
        self.next - self.count
    }

    /// How many did not come in their turn: never becomes less.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The counter after the highest that came.
    pub fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SHARED: SharedKey = [7; 32];

    proptest! {
        #[test]
        fn what_was_sealed_opens_unless_a_bit_has_changed(
            payload in prop::collection::vec(any::<u8>(), 0..200),
            counter: u64,
            bit: prop::sample::Index,
        ) {
            let seal = Seal::data(&SHARED, [1; 16], [2; 16]);
            let mut datagram = seal.seal(counter, &payload);
            let read = header(&datagram).expect("ours");
            prop_assert_eq!(read, Header { kind: Kind::Data, boot: [1; 16], counter });
            let mut changed = datagram.clone();
            let bit = bit.index(changed.len() * 8);
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Some(read) = header(&changed) {
                prop_assert_eq!(seal.open(read.counter, &mut changed), None);
            }
            prop_assert_eq!(seal.open(counter, &mut datagram), Some(&payload[..]));
        }

        #[test]
        fn other_keys_do_not_open(payload in prop::collection::vec(any::<u8>(), 0..50)) {
            let datagram = Seal::data(&SHARED, [1; 16], [2; 16]).seal(5, &payload);
            for other in [
                Seal::data(&[8; 32], [1; 16], [2; 16]),
                Seal::data(&SHARED, [1; 16], [3; 16]),
                Seal::data(&SHARED, [2; 16], [1; 16]),
                Seal::greetings(&SHARED, [1; 16]),
            ] {
                let mut copy = datagram.clone();
                prop_assert_eq!(other.open(5, &mut copy), None);
            }
        }

        #[test]
        fn any_bytes_have_a_header_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = header(&bytes);
        }

        #[test]
        fn each_counter_is_taken_once(
            counters in prop::collection::vec(0u64..400, 0..300),
        ) {
            let mut seen = Seen::default();
            let mut taken = BTreeSet::new();
            for counter in counters {
                let first = seen.first_time(counter);
                prop_assert!(!first || taken.insert(counter));
            }
            let highest = taken.last().map_or(0, |highest| highest + 1);
            prop_assert_eq!(seen.next(), highest);
            prop_assert!(seen.skipped() >= seen.lost());
            prop_assert_eq!(seen.lost(), highest - taken.len() as u64);
        }
    }
}
