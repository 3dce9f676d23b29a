//! Messages as tests make them up.

use proptest::{prelude::*, sample::Index};

/// A message of these parts.
pub(crate) fn message(line: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    format!("{line}\r\n{headers}\r\n{body}")
}

/// These bytes, of which one is sometimes another.
pub(crate) fn or_not_quite(
    bytes: impl Strategy<Value = Vec<u8>>,
) -> impl Strategy<Value = Vec<u8>> {
    let change = prop::option::weighted(0.3, (any::<Index>(), any::<u8>()));
    (bytes, change).prop_map(|(mut bytes, change)| {
        if let Some((place, byte)) = change {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes
    })
}

/// The bytes in pieces, none empty, cut at these places.
pub(crate) fn cut(bytes: &[u8], cuts: &[Index]) -> Vec<Vec<u8>> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    let pieces = places
        .windows(2)
        .map(|pair| bytes[pair[0]..pair[1]].to_vec());
    pieces.filter(|piece| !piece.is_empty()).collect()
}
