//! Addresses of this host, as far as they have been told of.

use std::{collections::HashMap, net::IpAddr};

use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};

/// What was told last of each address.
#[derive(Debug, Default)]
pub(super) struct Addresses(HashMap<Key, AddressMessage>);

/// Interface, bits of the prefix, and both ends.
type Key = (u32, u8, Vec<IpAddr>);

impl Addresses {
    /// Takes in an address that exists; says whether that changed anything. Its lifetime decides
    /// about no route, and may be prolonged every second.
    pub(super) fn set(&mut self, message: &AddressMessage) -> bool {
        let mut lasting = message.clone();
        lasting
            .attributes
            .retain(|attribute| !matches!(attribute, AddressAttribute::CacheInfo(_)));
        self.0.insert(key(message), lasting.clone()) != Some(lasting)
    }

    /// Forgets an address.
    pub(super) fn remove(&mut self, message: &AddressMessage) {
        self.0.remove(&key(message));
    }
}

fn key(message: &AddressMessage) -> Key {
    let attributes = message.attributes.iter();
    let own = attributes.filter_map(|attribute| match attribute {
        AddressAttribute::Local(address) | AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let header = &message.header;
    (header.index, header.prefix_len, own.collect())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rtnetlink::packet_route::address::CacheInfo;

    use super::*;

    fn message(host: u8, seconds: u32) -> AddressMessage {
        let mut message = AddressMessage::default();
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = seconds;
        message.attributes = vec![
            AddressAttribute::Address(IpAddr::from(Ipv4Addr::new(192, 0, 2, host))),
            AddressAttribute::CacheInfo(lifetime),
        ];
        message
    }

    #[test]
    fn a_prolonged_address_is_no_news() {
        let mut addresses = Addresses::default();
        assert!(addresses.set(&message(1, 3)));
        assert!(!addresses.set(&message(1, 2)));
        assert!(addresses.set(&message(2, 3)));
        addresses.remove(&message(1, 0));
        assert!(addresses.set(&message(1, 3)));
    }
}
