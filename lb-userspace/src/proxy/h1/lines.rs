//! Header fields as they were read, where they lie: a map is not made of what is only passed on.

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use super::fields::value;

/// The fields of a head, in order.
#[derive(Debug)]
pub(crate) struct Lines {
    head: Bytes,
    fields: Vec<Field>,
}

/// Where a name and a value lie in the head.
#[derive(Clone, Copy, Debug)]
struct Field {
    name: Place,
    value: Place,
}

/// From here to there.
type Place = (u32, u32);

impl Lines {
    /// The fields that the parser found in a head, which has less than 4 GiB.
    pub(crate) fn new(head: Bytes, parsed: &[httparse::Header<'_>]) -> Self {
        let start = head.as_ptr().addr();
        let place = |part: &[u8]| {
            let from = part.as_ptr().addr() - start;
            (from as u32, (from + part.len()) as u32)
        };
        let field = |field: &httparse::Header<'_>| Field {
            name: place(field.name.as_bytes()),
            value: place(field.value),
        };
        Self {
            fields: parsed.iter().map(field).collect(),
            head,
        }
    }

    /// The names, in whichever case they were sent, and the values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let fields = self.fields.iter();
        fields.map(|field| (part(&self.head, field.name), part(&self.head, field.value)))
    }

    /// Keeps those of which this is said.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let head = &self.head;
        self.fields
            .retain(|field| keep(part(head, field.name), part(head, field.value)));
    }

    /// Adds all to a map.
    pub(crate) fn add_to(&self, map: &mut HeaderMap) {
        map.reserve(self.fields.len());
        for (sent, bytes) in self.iter() {
            // What the parser takes for a name and a value is one, but for names of 64 KiB.
            if let Ok((name, value)) = value(&self.head, sent, bytes) {
                map.append(name, value);
            }
        }
    }
}

fn part(head: &Bytes, (from, to): Place) -> &[u8] {
    &head[from as usize..to as usize]
}

/// Whether a name as it was sent is this one.
pub(crate) fn is(sent: &[u8], name: &HeaderName) -> bool {
    sent.eq_ignore_ascii_case(name.as_str().as_bytes())
}
