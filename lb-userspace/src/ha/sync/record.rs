//! What nodes tell each other of their flows. Everything is named by addresses: service
//! indexes and backend ids are each node's own.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A service, as packets name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Vip {
    /// Address and port.
    pub address: SocketAddr,
    /// IP protocol number: 6 or 17.
    pub protocol: u8,
}

/// Something that another node could not work out by itself. Ages are in ticks of
/// [`lb_common::abi::TICK_NS`], since no two nodes' clocks agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A remembered flow of a tracked slot, or of an algorithm that remembers all.
    Flow {
        /// The service.
        vip: Vip,
        /// The client.
        client: SocketAddr,
        /// Its backend.
        backend: SocketAddr,
        /// Since the client's last packet.
        idle: u32,
        /// Bits of [`lb_common::abi::flow_state`].
        state: u8,
    },
    /// A `full-nat` flow.
    Translation {
        /// The service.
        vip: Vip,
        /// The client.
        client: SocketAddr,
        /// Its backend.
        backend: SocketAddr,
        /// What the backend sees as the client.
        source: SocketAddr,
        /// Since the last packet in either direction.
        idle: u32,
        /// Since the flow was made.
        age: u32,
        /// Bits of [`lb_common::abi::nat_state`].
        state: u8,
    },
    /// A client that keeps its backend.
    Affinity {
        /// The service.
        vip: Vip,
        /// The client.
        client: IpAddr,
        /// The backend.
        backend: SocketAddr,
        /// Since the client's last new flow.
        idle: u32,
    },
    /// A tracked slot: whose flows that nobody remembers it has.
    Slot {
        /// The service.
        vip: Vip,
        /// Size of its ring, as a power of two.
        log2_slots: u8,
        /// The slot.
        slot: u32,
        /// Owner of the flows that are not remembered; `None`: nobody.
        base: Option<SocketAddr>,
        /// Since the slot is tracked.
        tracked_for: u32,
    },
}

/// Puts a record behind what is there.
///
/// # Errors
///
/// None in practice: what postcard would refuse is not in a record.
pub fn append(bytes: Vec<u8>, record: &Record) -> postcard::Result<Vec<u8>> {
    postcard::to_extend(record, bytes)
}

/// The records in these bytes, one after the other.
///
/// # Errors
///
/// They are not whole records.
pub fn read_all(mut bytes: &[u8]) -> postcard::Result<Vec<Record>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (record, rest) = postcard::take_from_bytes(bytes)?;
        records.push(record);
        bytes = rest;
    }
    Ok(records)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn socket() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
    }

    fn vip() -> impl Strategy<Value = Vip> {
        (socket(), any::<u8>()).prop_map(|(address, protocol)| Vip { address, protocol })
    }

    pub(crate) fn record() -> impl Strategy<Value = Record> {
        let ages = (any::<u32>(), any::<u32>(), any::<u8>());
        let flow = (vip(), socket(), socket(), ages);
        let translation = (vip(), socket(), socket(), socket(), ages);
        let affinity = (vip(), any::<IpAddr>(), socket(), any::<u32>());
        let base = proptest::option::of(socket());
        let slot = (vip(), any::<u8>(), any::<u32>(), base, any::<u32>());
        prop_oneof![
            flow.prop_map(|(vip, client, backend, (idle, _, state))| Record::Flow {
                vip,
                client,
                backend,
                idle,
                state,
            }),
            translation.prop_map(|(vip, client, backend, source, (idle, age, state))| {
                Record::Translation {
                    vip,
                    client,
                    backend,
                    source,
                    idle,
                    age,
                    state,
                }
            }),
            affinity.prop_map(|(vip, client, backend, idle)| Record::Affinity {
                vip,
                client,
                backend,
                idle,
            }),
            slot.prop_map(|(vip, log2_slots, slot, base, tracked_for)| Record::Slot {
                vip,
                log2_slots,
                slot,
                base,
                tracked_for,
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(records in prop::collection::vec(record(), 0..20)) {
            let bytes = records
                .iter()
                .try_fold(Vec::new(), append)
                .expect("records can be written");
            prop_assert_eq!(read_all(&bytes).expect("they can be read"), records);
        }

        #[test]
        fn any_bytes_are_records_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_all(&bytes);
        }
    }
}
