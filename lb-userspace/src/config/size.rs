//! Sizes in bytes, as people write them.

use std::{
    fmt::{self, Display},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes, written as a number or as text: `"512"`, `"64KiB"`, `"10MiB"`, `"1GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
const EXPECTED: &str = r#"a size such as 512, "64KiB", "10MiB" or "1GiB""#;

impl Size {
    /// So many KiB.
    pub const fn kib(n: u64) -> Size {
        Size(n << 10)
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, shift): &&(&str, u32)| self.0 != 0 && self.0.is_multiple_of(1 << *shift);
        match UNITS.iter().find(whole) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Size, &'static str> {
        let unit = UNITS
            .iter()
            .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
        let (digits, shift) = unit.unwrap_or((text, 0));
        let digits = digits.trim_end();
        // parse() takes a sign too.
        (digits.parse::<u64>().ok())
            .filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|n| n.checked_mul(1 << shift))
            .map(Size)
            .ok_or(EXPECTED)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        deserializer.deserialize_any(NumberOrText)
    }
}

struct NumberOrText;

impl de::Visitor<'_> for NumberOrText {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Size, E> {
        Ok(Size(n))
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<Size, E> {
        u64::try_from(n).map(Size).map_err(|_| E::custom(EXPECTED))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_shown_is_read(n in prop_oneof![any::<u64>(), (0..4000u64).prop_map(|n| n << 20)]) {
            prop_assert_eq!(Size(n).to_string().parse(), Ok(Size(n)));
        }
    }

    #[test]
    fn units() {
        assert_eq!("64KiB".parse(), Ok(Size(65_536)));
        assert_eq!("1 MiB".parse(), Ok(Size(1 << 20)));
        assert_eq!(Size::kib(64).to_string(), "64KiB");
        for wrong in ["", "KiB", "-1", "+1", "1KB", "1.5MiB", "99999999999GiB"] {
            assert_eq!(wrong.parse::<Size>(), Err(EXPECTED), "{wrong}");
        }
    }
}
