//! Header and trailer fields, read where they lie and written.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header::TRAILER};

use super::Nonsense;
use crate::proxy::headers::list::items;

/// The name and value of a field that lies in `read`, which the value holds on to.
///
/// # Errors
///
/// One is none.
pub(crate) fn value(
    read: &Bytes,
    field: &httparse::Header<'_>,
) -> Result<(HeaderName, HeaderValue), Nonsense> {
    let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Nonsense::Header)?;
    let value = HeaderValue::from_maybe_shared(read.slice_ref(field.value));
    Ok((name, value.map_err(|_| Nonsense::Header)?))
}

/// All fields, likewise.
///
/// # Errors
///
/// One is none.
pub(crate) fn all(read: &Bytes, parsed: &[httparse::Header<'_>]) -> Result<HeaderMap, Nonsense> {
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let (name, value) = value(read, field)?;
        fields.append(name, value);
    }
    Ok(fields)
}

/// Writes a field's line.
pub(crate) fn put(head: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    let parts = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
    head.reserve(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| head.put(*part));
}

/// The trailers that a message announces: who reads it may take others for something else
/// (RFC 9110, section 6.5.1).
pub(crate) fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    items(headers, &TRAILER)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect()
}
