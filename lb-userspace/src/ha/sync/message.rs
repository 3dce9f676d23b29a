//! What datagrams hold.

use serde::{Deserialize, Serialize};

use super::{
    record::{self, Record},
    seal::{Boot, LONGEST_PAYLOAD},
};

/// The payload of a greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// The boot that the sender heard last from the receiver: shows that this greeting was made
    /// for it, and is no recording.
    pub(super) echo: Option<Boot>,
    /// The sender has not been shown yet that the receiver's greetings are fresh: it wants one.
    pub(super) answer: bool,
}

/// What the payload of a datagram of a session begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// Records follow that have just been made.
    Live,
    /// Wants a snapshot of the receiver's flows: the chunks from this one on.
    Pull {
        /// Which snapshot: the sender's number for it.
        snapshot: u32,
        /// First chunk that is missing.
        chunk: u32,
    },
    /// Records of a snapshot follow.
    Chunk {
        /// Which snapshot.
        snapshot: u32,
        /// Which part of it.
        chunk: u32,
        /// How many parts it has; at least 1.
        chunks: u32,
    },
    /// Says how far the sender has come with what the receiver sent.
    Report {
        /// The counter after the highest that came.
        next: u64,
    },
}

/// Longest message without records, in bytes.
const LONGEST_HEAD: usize = 1 + 3 * 5;

impl Message {
    /// As bytes, with records behind it.
    pub(super) fn with(&self, records: &[u8]) -> postcard::Result<Vec<u8>> {
        let mut bytes = postcard::to_extend(self, Vec::new())?;
        bytes.extend_from_slice(records);
        Ok(bytes)
    }

    /// From bytes, and the bytes of the records behind it.
    pub(super) fn read(bytes: &[u8]) -> postcard::Result<(Self, &[u8])> {
        postcard::take_from_bytes(bytes)
    }
}

/// Records as bytes, in pieces each of which fits into a datagram.
#[derive(Default)]
pub(super) struct Pieces {
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
}

impl Pieces {
    /// Adds a record. One that cannot be written is left out: there is none.
    pub(super) fn push(&mut self, record: &Record) {
        let Ok(bytes) = record::append(Vec::new(), record) else {
            return;
        };
        if self.last.len() + bytes.len() > LONGEST_PAYLOAD - LONGEST_HEAD {
            self.full.push(std::mem::take(&mut self.last));
        }
        self.last.extend_from_slice(&bytes);
    }

    /// All pieces; none is left.
    pub(super) fn take(&mut self) -> Vec<Vec<u8>> {
        let mut pieces = std::mem::take(&mut self.full);
        if !self.last.is_empty() {
            pieces.push(std::mem::take(&mut self.last));
        }
        pieces
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.full.len() * LONGEST_PAYLOAD + self.last.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::record::tests::record, *};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pieces_fit_and_hold_everything(records in prop::collection::vec(record(), 0..200)) {
            let mut pieces = Pieces::default();
            records.iter().for_each(|record| pieces.push(record));
            let mut read = Vec::new();
            for piece in pieces.take() {
                let head = Message::Chunk { snapshot: u32::MAX, chunk: u32::MAX, chunks: u32::MAX };
                let payload = head.with(&piece).expect("a message can be written");
                prop_assert!(payload.len() <= LONGEST_PAYLOAD);
                let (message, rest) = Message::read(&payload).expect("it can be read");
                prop_assert_eq!(message, head);
                read.extend(record::read_all(rest).expect("records"));
            }
            prop_assert_eq!(read, records);
        }

        #[test]
        fn any_bytes_are_a_message_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Message::read(&bytes);
        }
    }
}
