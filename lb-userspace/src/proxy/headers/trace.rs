//! W3C trace context: `traceparent`, <https://www.w3.org/TR/trace-context/>.

use std::fmt::{self, Display};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::http::Trace as Config;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What Weir does for a traced request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace; not 0.
    pub trace: u128,
    /// This span; not 0.
    pub id: u64,
    /// The span of who asked, if there is one.
    pub parent: Option<u64>,
}

/// What `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    trace: u128,
    id: u64,
    sampled: bool,
}

impl Config {
    /// The span of a request that is traced, of which the backend's will be children; `None`: it
    /// is not, and its `traceparent` goes on as it came. One that is none is taken away.
    pub fn begin(&self, headers: &mut HeaderMap) -> Option<Span> {
        let said = headers.get_all(TRACEPARENT).iter().count();
        let parent = match said {
            0 => None,
            1 => headers.get(TRACEPARENT).and_then(parse),
            _ => None,
        };
        if said > 0 && parent.is_none() {
            headers.remove(TRACEPARENT);
            headers.remove(TRACESTATE);
        }
        let one_in = self.one_in?;
        let traced = parent.map_or_else(|| fastrand::u32(..one_in.max(1)) == 0, |p| p.sampled);
        if !traced {
            return None;
        }
        let span = Span {
            trace: parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace),
            id: fastrand::u64(1..),
            parent: parent.map(|parent| parent.id),
        };
        if let Ok(value) = HeaderValue::try_from(span.to_string()) {
            headers.insert(TRACEPARENT, value);
        }
        Some(span)
    }
}

impl Display for Span {
    /// As in `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", self.trace, self.id)
    }
}

/// Later versions may add fields, which are not looked at.
fn parse(value: &HeaderValue) -> Option<Parent> {
    let text = value.to_str().ok()?;
    let mut fields = text.split('-');
    let version = hex(fields.next()?, 2)?;
    let trace = hex(fields.next()?, 32)?;
    let id = hex(fields.next()?, 16)? as u64;
    let flags = hex(fields.next()?, 2)?;
    let more = fields.next().is_some();
    let good = version != 0xff && !(version == 0 && more) && trace != 0 && id != 0;
    good.then_some(Parent {
        trace,
        id,
        sampled: flags & 1 == 1,
    })
}

/// So many hex digits in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (text.len() == digits && text.bytes().all(digit))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn begin(one_in: Option<u32>, said: &[&str]) -> (Option<Span>, Vec<String>) {
        let mut headers = HeaderMap::new();
        for said in said {
            headers.append(TRACEPARENT, said.parse().unwrap());
        }
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        let span = Config { one_in }.begin(&mut headers);
        let after = headers.get_all(TRACEPARENT).iter();
        let after = after
            .map(|value| value.to_str().unwrap().to_owned())
            .collect();
        (span, after)
    }

    #[test]
    fn parents() {
        assert_eq!(begin(None, &[SAMPLED]), (None, vec![SAMPLED.to_owned()]));
        let (span, after) = begin(Some(1000), &[SAMPLED]);
        let span = span.unwrap();
        assert_eq!(span.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(span.parent, Some(0x00f0_67aa_0ba9_02b7));
        assert_eq!(after, [span.to_string()]);
        let unsampled = SAMPLED.replace("-01", "-00");
        assert_eq!(
            begin(Some(1), &[&unsampled]),
            (None, vec![unsampled.clone()])
        );
        assert_eq!(begin(None, &[]), (None, vec![]));
        let (span, after) = begin(Some(1), &[]);
        assert_eq!(span.unwrap().parent, None);
        let parent = parse(&after[0].parse().unwrap()).unwrap();
        assert_eq!(
            (parent.trace, parent.id),
            (span.unwrap().trace, span.unwrap().id)
        );
    }

    #[test]
    fn what_is_none_is_taken_away() {
        for said in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(begin(None, &[said]), (None, vec![]), "{said}");
        }
        assert_eq!(begin(None, &[SAMPLED, SAMPLED]), (None, vec![]));
        let later = SAMPLED.replacen("00", "01", 1) + "-more";
        assert_eq!(begin(None, &[&later]), (None, vec![later.clone()]));
    }
}
