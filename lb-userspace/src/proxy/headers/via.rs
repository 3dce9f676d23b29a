//! `Via`: which proxies a message came through (RFC 9110, 7.6.3).

use http::{HeaderMap, HeaderValue, Version, header::VIA};

/// What Weir adds, by the protocol in which it has received a message.
#[derive(Debug)]
pub struct Via {
    http_1_0: HeaderValue,
    http_1_1: HeaderValue,
    http_2: HeaderValue,
}

impl Via {
    /// By this name.
    ///
    /// # Errors
    ///
    /// A name that the configuration's check would have refused.
    pub fn new(name: &str) -> anyhow::Result<Via> {
        let value = |version| HeaderValue::try_from(format!("{version} {name}"));
        Ok(Via {
            http_1_0: value("1.0")?,
            http_1_1: value("1.1")?,
            http_2: value("2.0")?,
        })
    }

    /// Adds Weir after those that were there before; `version`: in which the message came.
    pub fn apply(&self, headers: &mut HeaderMap, version: Version) {
        let value = match version {
            Version::HTTP_2 => &self.http_2,
            Version::HTTP_10 => &self.http_1_0,
            _ => &self.http_1_1,
        };
        headers.append(VIA, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weir_comes_last() {
        let via = Via::new("weir").expect("a name");
        let mut headers = HeaderMap::new();
        headers.insert(VIA, HeaderValue::from_static("1.0 fred"));
        via.apply(&mut headers, Version::HTTP_2);
        via.apply(&mut headers, Version::HTTP_11);
        let seen: Vec<_> = headers.get_all(VIA).iter().collect();
        assert_eq!(seen, ["1.0 fred", "2.0 weir", "1.1 weir"]);
    }
}
