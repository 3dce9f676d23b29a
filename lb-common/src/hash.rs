//! The keyed hash that assigns a flow to a slot.

use crate::abi::{Address, FlowKey, IPV4};

/// The secret that the hash mixes in: who does not know it cannot choose a flow's slot. All
/// nodes that must agree have the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKey(pub [u64; 2]);

/// Odd constant with well mixed bits (the golden ratio's, as in Fibonacci hashing).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// One word into the state: BPF has a 64-bit multiply but neither rotate nor wide product.
#[inline(always)]
const fn absorb(state: u64, word: u64, multiplier: u64) -> u64 {
    let mixed = (state ^ word).wrapping_mul(multiplier);
    mixed ^ (mixed >> 32)
}

impl HashKey {
    /// The hash of a flow from its client's side: addresses and ports in network order, the
    /// ports as one word (source in the low half). The low bits are the best mixed ones.
    #[inline(always)]
    pub const fn flow(
        self,
        family: u8,
        source: &Address,
        destination: &Address,
        ports: u32,
        protocol: u8,
    ) -> u64 {
        // Forced odd, so that multiplying loses nothing.
        let multiplier = self.0[1] | 1;
        let mut state = self.0[0] ^ protocol as u64;
        if family == IPV4 {
            state = absorb(state, source[0] | (destination[0] << 32), multiplier);
        } else {
            state = absorb(state, source[0], multiplier);
            state = absorb(state, source[1], multiplier);
            state = absorb(state, destination[0], multiplier);
            state = absorb(state, destination[1], multiplier);
        }
        state = absorb(state, ports as u64, multiplier);
        absorb(state, 0, GOLDEN)
    }

    /// [`HashKey::flow`] of a flow's key; `hashed_ports` as
    /// [`crate::abi::Service::hashed_ports`].
    pub const fn of(self, key: &FlowKey, hashed_ports: u32) -> u64 {
        let [a, b] = key.source_port.to_ne_bytes();
        let [c, d] = key.destination_port.to_ne_bytes();
        let ports = u32::from_ne_bytes([a, b, c, d]) & hashed_ports;
        self.flow(
            key.family,
            &key.source,
            &key.destination,
            ports,
            key.protocol,
        )
    }
}
