//! Headers that are lists (RFC 9110, section 5.6.1).

use http::{HeaderMap, HeaderName};

/// The items in all headers of a name, without the space around them; empty ones, too.
pub fn items<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}
