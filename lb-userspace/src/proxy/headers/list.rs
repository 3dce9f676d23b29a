//! Headers that are lists (RFC 9110, section 5.6.1).

use http::{HeaderMap, HeaderName};

/// The items in all headers of a name, without the space around them; empty ones, too.
pub fn items<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let lists = headers.get_all(name).iter();
    lists.flat_map(|list| items_of(list.as_bytes()))
}

/// The items of one header, likewise.
pub fn items_of(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}
