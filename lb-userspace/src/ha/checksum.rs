//! The Internet checksum of whole messages (RFC 1071).

use std::net::IpAddr;

use lb_common::checksum::Sum;

/// Of bytes that follow what has been summed up; an odd one counts as if a zero followed.
pub(super) fn bytes(sum: Sum, bytes: &[u8]) -> Sum {
    bytes.chunks(2).fold(sum, |sum, pair| {
        let pair = [pair[0], pair.get(1).copied().unwrap_or(0)];
        sum.word16(u16::from_ne_bytes(pair))
    })
}

/// Of the header that RFC 8200 (8.1) puts before a message of `length` bytes, and its likeness
/// with IPv4 addresses.
pub(super) fn pseudo_header(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    length: usize,
) -> Sum {
    let address = |sum, address| match address {
        IpAddr::V4(v4) => bytes(sum, &v4.octets()),
        IpAddr::V6(v6) => bytes(sum, &v6.octets()),
    };
    address(address(Sum::NONE, source), destination)
        .word32((length as u32).to_be())
        .word32(u32::from(protocol).to_be())
}
