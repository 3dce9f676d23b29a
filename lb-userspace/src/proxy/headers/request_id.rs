//! A request's id: in a header to the backend, in the answer, in the access log.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::http::RequestId as Config;

/// Bytes of an id that is kept.
const LONGEST: usize = 128;

/// How requests get their id, compiled.
#[derive(Debug)]
pub struct RequestIds {
    header: HeaderName,
    keep_trusted: bool,
}

impl RequestIds {
    /// `None`: requests get none.
    ///
    /// # Errors
    ///
    /// A header's name that the configuration's check would have refused.
    pub fn new(config: &Config) -> anyhow::Result<Option<RequestIds>> {
        if !config.enabled {
            return Ok(None);
        }
        let header = config.header.parse()?;
        Ok(Some(RequestIds {
            header,
            keep_trusted: config.keep_trusted,
        }))
    }

    /// The header's name, for the answer.
    pub fn header(&self) -> &HeaderName {
        &self.header
    }

    /// Gives a request its id; `trusted`: whether the hop that it came from is.
    pub fn apply(&self, headers: &mut HeaderMap, trusted: bool) -> HeaderValue {
        let fits = |id: &&HeaderValue| {
            (1..=LONGEST).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        let kept = headers
            .get(&self.header)
            .filter(|_| self.keep_trusted && trusted);
        let id = kept.filter(fits).cloned().unwrap_or_else(new_id);
        headers.insert(&self.header, id.clone());
        id
    }
}

/// 32 hex digits, by chance.
fn new_id() -> HeaderValue {
    let mut digits = [0; 32];
    let id = fastrand::u128(..);
    for (n, digit) in digits.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(id >> (124 - 4 * n)) as usize & 15];
    }
    HeaderValue::from_bytes(&digits).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let ids = RequestIds::new(&Config::default()).unwrap().unwrap();
        let id_of = |said: Option<&str>, trusted| {
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert(ids.header(), said.parse().unwrap());
            }
            let id = ids.apply(&mut headers, trusted);
            assert_eq!(headers.get("x-request-id"), Some(&id));
            id.to_str().unwrap().to_owned()
        };
        assert_eq!(id_of(Some("abc-1"), true), "abc-1");
        for made in [
            id_of(Some("abc-1"), false),
            id_of(Some("a b"), true),
            id_of(Some(&"x".repeat(129)), true),
            id_of(None, true),
        ] {
            assert_eq!(made.len(), 32);
            assert!(made.bytes().all(|b| b.is_ascii_hexdigit()), "{made}");
        }
        assert_ne!(id_of(None, false), id_of(None, false));
        assert!(
            RequestIds::new(&Config {
                enabled: false,
                ..Config::default()
            })
            .unwrap()
            .is_none()
        );
    }
}
