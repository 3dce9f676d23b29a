//! Advertisements as they are on the wire (RFC 9568, section 5).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use lb_common::checksum::Sum;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ha::checksum;

/// IP protocol number.
pub const PROTOCOL: u8 = 112;
/// TTL or hop limit of everything that is sent, and of everything that is taken: what has been
/// routed comes from elsewhere.
pub const TTL: u8 = 255;
/// Where advertisements go over IPv4.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Where advertisements go over IPv6.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// Version 3, type 1: an advertisement.
const VERSION_AND_TYPE: u8 = 0x31;
/// Bytes before the addresses.
const HEADER: usize = 8;
/// Where the checksum is.
const CHECKSUM: usize = 6;

/// A time between two advertisements, in the wire's hundredths of a second: 1 to 4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(u16);

impl Interval {
    /// The RFC's default.
    pub const SECOND: Self = Self(100);

    /// The whole hundredths of a second of a time, if there are 1 to 4095 of them.
    pub fn new(time: Duration) -> Option<Self> {
        let hundredths = u16::try_from(time.as_millis() / 10).ok()?;
        (1..=0x0fff)
            .contains(&hundredths)
            .then_some(Self(hundredths))
    }

    /// The time.
    pub fn duration(self) -> Duration {
        Duration::from_millis(u64::from(self.0) * 10)
    }
}

/// What the checksum of an IPv4 advertisement covers. RFC 9568 (5.2.8) says the message alone;
/// its predecessor was read otherwise by keepalived and FRR, among others. Over IPv6 it always
/// covers a pseudo-header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coverage {
    /// The message.
    Rfc9568,
    /// A pseudo-header and the message, as RFC 5798 may be read.
    Rfc5798,
}

/// An advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// Virtual router id, 1 to 255.
    pub vrid: u8,
    /// 255: owns the addresses; 0: gives them up.
    pub priority: u8,
    /// Until the next one.
    pub interval: Interval,
    /// The virtual addresses, 1 to 255 of one family.
    pub addresses: Vec<IpAddr>,
}

/// Why a message is not taken for an advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// It ends too early.
    #[error("{0} bytes are too few")]
    Short(usize),
    /// Not version 3 and type 1.
    #[error("version {} and type {} are not VRRPv3's advertisement", .0 >> 4, .0 & 0xf)]
    Kind(u8),
    /// The checksum is of neither coverage.
    #[error("the checksum is wrong")]
    Checksum,
    /// A virtual router, an interval or a number of addresses that cannot be.
    #[error("{0} is 0")]
    Zero(&'static str),
}

impl Advert {
    /// The message, sent from and to these addresses, which are of the family of its own.
    pub fn encode(&self, source: IpAddr, destination: IpAddr, coverage: Coverage) -> Vec<u8> {
        let interval = self.interval.0.to_be_bytes();
        let count = self.addresses.len() as u8;
        let mut bytes = vec![VERSION_AND_TYPE, self.vrid, self.priority, count];
        bytes.extend(interval);
        bytes.extend([0, 0]);
        for address in &self.addresses {
            match address {
                IpAddr::V4(v4) => bytes.extend(v4.octets()),
                IpAddr::V6(v6) => bytes.extend(v6.octets()),
            }
        }
        let check = sum(&bytes, source, destination, coverage).checksum();
        bytes[CHECKSUM..HEADER].copy_from_slice(&check.to_ne_bytes());
        bytes
    }

    /// Reads a message that came from and to these addresses, and tells what its checksum
    /// covers. Whoever calls has checked the TTL.
    ///
    /// # Errors
    ///
    /// It is none, or not whole.
    pub fn decode(
        bytes: &[u8],
        source: IpAddr,
        destination: IpAddr,
    ) -> Result<(Self, Coverage), Fault> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(Fault::Short(bytes.len()));
        };
        let &[kind, vrid, priority, count, high, low, ..] = header;
        if kind != VERSION_AND_TYPE {
            return Err(Fault::Kind(kind));
        }
        let one = if source.is_ipv4() { 4 } else { 16 };
        let rest = (rest.get(..usize::from(count) * one)).ok_or(Fault::Short(bytes.len()))?;
        let right = |coverage| sum(bytes, source, destination, coverage).checksum() == 0;
        let coverage = [Coverage::Rfc9568, Coverage::Rfc5798]
            .into_iter()
            .find(|coverage| right(*coverage))
            .ok_or(Fault::Checksum)?;
        // The upper four bits are reserved, and ignored.
        let interval = u16::from_be_bytes([high & 0x0f, low]);
        for (what, number) in [
            ("the virtual router id", u16::from(vrid)),
            ("the interval", interval),
            ("the number of addresses", u16::from(count)),
        ] {
            if number == 0 {
                return Err(Fault::Zero(what));
            }
        }
        let addresses = rest.chunks_exact(one).map(address);
        let advert = Self {
            vrid,
            priority,
            interval: Interval(interval),
            addresses: addresses.collect(),
        };
        Ok((advert, coverage))
    }
}

fn address(bytes: &[u8]) -> IpAddr {
    match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(v4), _) => v4.into(),
        (_, Ok(v6)) => v6.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

fn sum(bytes: &[u8], source: IpAddr, destination: IpAddr, coverage: Coverage) -> Sum {
    let before = match (source, coverage) {
        (IpAddr::V4(_), Coverage::Rfc9568) => Sum::NONE,
        _ => checksum::pseudo_header(source, destination, PROTOCOL, bytes.len()),
    };
    checksum::bytes(before, bytes)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn v4() -> impl Strategy<Value = IpAddr> {
        any::<Ipv4Addr>().prop_map(IpAddr::from)
    }

    fn v6() -> impl Strategy<Value = IpAddr> {
        any::<Ipv6Addr>().prop_map(IpAddr::from)
    }

    fn way() -> impl Strategy<Value = (IpAddr, IpAddr, Vec<IpAddr>)> {
        prop_oneof![
            (v4(), v4(), vec(v4(), 1..40)),
            (v6(), v6(), vec(v6(), 1..40))
        ]
    }

    fn coverage() -> impl Strategy<Value = Coverage> {
        prop_oneof![Just(Coverage::Rfc9568), Just(Coverage::Rfc5798)]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (source, destination, addresses) in way(),
            (vrid, priority, interval) in (1u8.., any::<u8>(), 1u16..0x1000),
            coverage in coverage(),
        ) {
            let interval = Interval(interval);
            let advert = Advert { vrid, priority, interval, addresses };
            let bytes = advert.encode(source, destination, coverage);
            let (read, seen) = Advert::decode(&bytes, source, destination).expect("it is right");
            prop_assert_eq!(&read, &advert);
            // Where one sum is right by chance, the other may be meant.
            prop_assert_eq!(read.encode(source, destination, seen), bytes);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..64), v4 in any::<bool>()) {
            let address = match v4 {
                true => IpAddr::from(GROUP_V4),
                false => GROUP_V6.into(),
            };
            let _ = Advert::decode(&bytes, address, address);
        }

        #[test]
        fn a_flipped_bit_is_noticed(
            (source, destination, addresses) in way(),
            coverage in coverage(),
            at in any::<prop::sample::Index>(),
        ) {
            let interval = Interval(100);
            let advert = Advert { vrid: 7, priority: 100, interval, addresses };
            let mut bytes = advert.encode(source, destination, coverage);
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            // Over IPv4 there are two sums that may be right: one that fits by chance.
            if let Ok((_, seen)) = Advert::decode(&bytes, source, destination) {
                prop_assert!(source.is_ipv4() && seen != coverage);
            }
        }

        #[test]
        fn a_message_that_is_cut_short_is_refused(
            (source, destination, addresses) in way(),
            at in any::<prop::sample::Index>(),
        ) {
            let interval = Interval(100);
            let advert = Advert { vrid: 7, priority: 100, interval, addresses };
            let bytes = advert.encode(source, destination, Coverage::Rfc9568);
            let cut = at.index(bytes.len());
            let read = Advert::decode(&bytes[..cut], source, destination);
            prop_assert_eq!(read, Err(Fault::Short(cut)));
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_rfc() {
        let source: IpAddr = Ipv4Addr::new(198, 18, 0, 2).into();
        let advert = Advert {
            vrid: 51,
            priority: 100,
            interval: Interval(100),
            addresses: vec![Ipv4Addr::new(198, 19, 0, 1).into()],
        };
        let plain = advert.encode(source, GROUP_V4.into(), Coverage::Rfc9568);
        assert_eq!(&plain[..6], [0x31, 51, 100, 1, 0, 100]);
        // 0x3133 + 0x6401 + 0x0064 + 0xc613 + 0x0001, complemented.
        assert_eq!(&plain[6..8], 0xa452u16.to_be_bytes());
    }

    #[test]
    fn other_versions_are_named() {
        let any = IpAddr::from(GROUP_V4);
        let read = Advert::decode(&[0x21, 1, 100, 0, 0, 1, 0, 0], any, any);
        assert_eq!(read, Err(Fault::Kind(0x21)));
        assert_eq!(
            Fault::Kind(0x21).to_string(),
            "version 2 and type 1 are not VRRPv3's advertisement"
        );
    }
}
