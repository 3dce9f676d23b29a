//! What a header, cookie or parameter must be.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};

/// What a header, cookie or parameter must be. Written as text, which it must be, or as a table
/// with one of the fields `prefix`, `regex` and `present`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// This text.
    Exact(String),
    /// Text that begins so.
    Prefix(String),
    /// Text that this expression matches, from its beginning to its end.
    Regex(String),
    /// Anything (`true`), or not there at all (`false`).
    Present(bool),
}

impl Serialize for TextMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let TextMatch::Exact(text) = self {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            TextMatch::Exact(_) => {}
            TextMatch::Prefix(text) => map.serialize_entry("prefix", text)?,
            TextMatch::Regex(text) => map.serialize_entry("regex", text)?,
            TextMatch::Present(present) => map.serialize_entry("present", present)?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for TextMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TextMatch, D::Error> {
        // By hand: an untagged enum's errors do not say what is wrong.
        deserializer.deserialize_any(TextOrTable)
    }
}

struct TextOrTable;

const FIELDS: &[&str] = &["prefix", "regex", "present"];

impl<'de> Visitor<'de> for TextOrTable {
    type Value = TextMatch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"text, or a table with one of "prefix", "regex" and "present""#)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TextMatch, E> {
        Ok(TextMatch::Exact(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TextMatch, A::Error> {
        let mut matcher = None;
        while let Some(field) = map.next_key::<String>()? {
            let read = match &*field {
                "prefix" => TextMatch::Prefix(map.next_value()?),
                "regex" => TextMatch::Regex(map.next_value()?),
                "present" => TextMatch::Present(map.next_value()?),
                _ => return Err(de::Error::unknown_field(&field, FIELDS)),
            };
            if matcher.replace(read).is_some() {
                return Err(de::Error::invalid_length(2, &self));
            }
        }
        matcher.ok_or_else(|| de::Error::invalid_length(0, &self))
    }
}
