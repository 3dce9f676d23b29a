//! Header and trailer fields, read where they lie and written.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Nonsense;
use crate::proxy::headers::list::items_of;

/// The name and value of a field that lies in `head`, which the value holds on to.
///
/// # Errors
///
/// One is none.
pub(crate) fn value(
    head: &Bytes,
    name: &[u8],
    value: &[u8],
) -> Result<(HeaderName, HeaderValue), Nonsense> {
    let name = HeaderName::from_bytes(name).map_err(|_| Nonsense::Header)?;
    let value = HeaderValue::from_maybe_shared(head.slice_ref(value));
    Ok((name, value.map_err(|_| Nonsense::Header)?))
}

/// All fields, likewise.
///
/// # Errors
///
/// One is none.
pub(super) fn all(read: &Bytes, parsed: &[httparse::Header<'_>]) -> Result<HeaderMap, Nonsense> {
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let (name, value) = value(read, field.name.as_bytes(), field.value)?;
        fields.append(name, value);
    }
    Ok(fields)
}

/// Writes a field's line.
pub(crate) fn put(head: &mut BytesMut, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
    let (name, value) = (name.as_ref(), value.as_ref());
    head.reserve(name.len() + value.len() + 4);
    for part in [name, b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

/// Writes the line with a body's length.
pub(crate) fn put_length(head: &mut BytesMut, length: u64) {
    // A buffer that grows takes all of it.
    let _ = write!(head, "content-length: {length}\r\n");
}

/// A body's length, as a header says it (RFC 9112, section 6.2): digits alone.
pub(crate) fn length(said: &[u8]) -> Option<u64> {
    let known = !said.is_empty() && said.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(said).ok().filter(|_| known)?;
    digits.parse().ok()
}

/// The trailers that a message announces in these lists: who reads it may take others for something
/// else (RFC 9110, section 6.5.1).
pub(crate) fn announced<'a>(lists: impl Iterator<Item = &'a [u8]>) -> Vec<HeaderName> {
    lists
        .flat_map(items_of)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect()
}
