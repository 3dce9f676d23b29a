//! Frames that a generator makes: what its program and its driver share.

use crate::{abi::Plain, checksum::Delta, frame::Frame};

/// Bytes that a frame's headers may have: enough for Ethernet, IPv6 and TCP.
pub const HEADERS: usize = 80;
/// The same where the frame has fewer than [`HEADERS`] bytes: enough for Ethernet, IPv4 and TCP.
pub const SHORT_HEADERS: usize = 56;

/// What is generated: the template's frame, from the sources and ports of as many flows.
///
/// Offsets are from the frame's start and below 128.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The first flow's headers, with checksums, and zeros behind them.
    pub template: [u8; HEADERS],
    /// The last four bytes of the first flow's source address, host order.
    pub address: u32,
    /// Where they are.
    pub address_at: u32,
    /// The first flow's source port, host order.
    pub port: u32,
    /// Where it is.
    pub port_at: u32,
    /// Number of flows less one; that number is a power of two.
    pub mask: u32,
    /// How many of the low bits of a flow's number say which port it has; the others say
    /// which address.
    pub port_bits: u32,
    /// IPv4's header checksum, host order.
    pub ip_check: u32,
    /// Where it is; 0: there is none.
    pub ip_check_at: u32,
    /// The transport's checksum, host order.
    pub l4_check: u32,
    /// Where it is; 0: there is none.
    pub l4_check_at: u32,
    /// Index of the interface that frames leave by.
    pub ifindex: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Stream>() == HEADERS + 48);
// SAFETY: the size asserted above is the sum of the fields' sizes, and they are integers.
unsafe impl Plain for Stream {}

impl Stream {
    /// Source of the frame with this number: last four bytes of its address, and port; host
    /// order. As many frames as there are flows, one after the other, are of different ones.
    #[inline(always)]
    pub fn source(&self, number: u64) -> (u32, u16) {
        // An odd factor visits all flows before the first comes again, in no order that a
        // cache could guess.
        let flow = (number as u32).wrapping_mul(0x9e37_79b1) & self.mask;
        let bits = self.port_bits & 31;
        let port = self.port.wrapping_add(flow & ((1 << bits) - 1));
        (self.address.wrapping_add(flow >> bits), port as u16)
    }

    /// Writes the headers of the frame with this number over whatever is there: a frame that
    /// comes back has been rewritten by others. False where the frame is too short.
    #[inline(always)]
    pub fn write<F: Frame>(&self, frame: &mut F, number: u64) -> bool {
        let (address, port) = self.source(number);
        let addresses = Delta::NONE.word32(self.address.to_be(), address.to_be());
        let both = addresses.word16((self.port as u16).to_be(), port.to_be());
        self.copy(frame)
            && put32(frame, self.address_at, address)
            && put16(frame, self.port_at, port)
            && check(frame, self.ip_check_at, self.ip_check, addresses)
            && check(frame, self.l4_check_at, self.l4_check, both)
    }

    #[inline(always)]
    fn copy<F: Frame>(&self, frame: &mut F) -> bool {
        const REST: usize = HEADERS - SHORT_HEADERS;
        let (Some(first), Some(rest)) = (
            self.template.first_chunk::<SHORT_HEADERS>(),
            self.template.last_chunk::<REST>(),
        ) else {
            return false;
        };
        if let Some(mut bytes) = frame.window_mut::<REST>(SHORT_HEADERS) {
            bytes.copy_from(rest);
        }
        match frame.window_mut::<SHORT_HEADERS>(0) {
            Some(mut bytes) => bytes.copy_from(first),
            None => return false,
        }
        true
    }
}

/// A checksum, unless there is none. All ones is zero to TCP too, so UDP's rule does for both.
#[inline(always)]
fn check<F: Frame>(frame: &mut F, at: u32, check: u32, delta: Delta) -> bool {
    let check = delta.apply_udp((check as u16).to_be());
    at == 0 || put16(frame, at, u16::from_be(check))
}

#[inline(always)]
fn put32<F: Frame>(frame: &mut F, at: u32, value: u32) -> bool {
    let place = frame.window_mut::<4>(at as usize & 127);
    place
        .map(|mut place| place.set::<u32, 0>(value.to_be()))
        .is_some()
}

#[inline(always)]
fn put16<F: Frame>(frame: &mut F, at: u32, value: u16) -> bool {
    let place = frame.window_mut::<2>(at as usize & 127);
    place
        .map(|mut place| place.set::<u16, 0>(value.to_be()))
        .is_some()
}
