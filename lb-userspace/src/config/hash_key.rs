//! The flow hash's secret as 32 hex digits.

use lb_common::hash::HashKey;
use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// The key where none is given: public, so that nodes agree without one.
pub(super) const DEFAULT: HashKey = split(0x5765_6972_0001_6861_7368_206b_6579_2e01);

const fn split(key: u128) -> HashKey {
    HashKey([(key >> 64) as u64, key as u64])
}

pub(super) fn serialize<S: Serializer>(key: &HashKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:016x}{:016x}", key.0[0], key.0[1]))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<HashKey, D::Error> {
    let text = String::deserialize(d)?;
    // from_str_radix takes a sign too.
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    (u128::from_str_radix(&text, 16).ok())
        .filter(|_| digits)
        .map(split)
        .ok_or_else(|| Error::custom("32 hex digits"))
}
