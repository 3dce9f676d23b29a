//! Sessions that stay with a backend by a cookie (RFC 6265). The cookie's value is a keyed hash
//! of pool and backend: nobody without the key can tell which it is, or make one for another.

use std::fmt::Write;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};
use lb_common::hash::HashKey;
use ring::hmac;

use super::cookies::cookies;
use crate::config::http::{SameSite, Sticky};

/// What stands for a backend in a cookie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token([u8; 16]);

/// The key of all tokens: nodes with the same `agent.hash_key` understand each other's.
pub struct SessionKey(hmac::Key);

impl SessionKey {
    /// From the agent's secret.
    pub fn new(key: HashKey) -> SessionKey {
        let secret = [key.0[0].to_be_bytes(), key.0[1].to_be_bytes()].concat();
        // Another key than the flow hash's, so that neither says anything of the other.
        let root = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let own = hmac::sign(&root, b"weir session cookies");
        SessionKey(hmac::Key::new(hmac::HMAC_SHA256, own.as_ref()))
    }

    /// What stands for a backend; names cannot contain the zero between them.
    pub fn token(&self, pool: &str, backend: &str) -> Token {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(pool.as_bytes());
        context.update(&[0]);
        context.update(backend.as_bytes());
        let mut token = [0; 16];
        token.copy_from_slice(&context.sign().as_ref()[..16]);
        Token(token)
    }
}

/// A route's cookie, compiled.
#[derive(Debug)]
pub struct Cookie {
    name: String,
    attributes: String,
    /// `None`: where the client speaks TLS.
    secure: Option<bool>,
}

impl Cookie {
    /// Compiles one.
    pub fn new(config: &Sticky) -> Cookie {
        let mut attributes = format!("; Path={}", config.path);
        if let Some(domain) = &config.domain {
            attributes += &format!("; Domain={domain}");
        }
        if let Some(age) = config.max_age {
            attributes += &format!("; Max-Age={}", age.as_secs());
        }
        if config.http_only {
            attributes += "; HttpOnly";
        }
        attributes += match config.same_site {
            SameSite::Lax => "; SameSite=Lax",
            SameSite::Strict => "; SameSite=Strict",
            SameSite::None => "; SameSite=None",
        };
        let secure = match config.same_site {
            // Browsers take no other.
            SameSite::None => Some(true),
            SameSite::Lax | SameSite::Strict => config.secure,
        };
        Cookie {
            name: config.cookie.clone(),
            attributes,
            secure,
        }
    }

    /// The token that a request brings, whether it is one of a backend or not.
    pub fn read(&self, headers: &HeaderMap) -> Option<Token> {
        let ours = cookies(headers).filter(|(name, _)| *name == self.name);
        ours.filter_map(|(_, value)| {
            let mut token = [0; 16];
            // 18 are decoded of 24 characters: what is longer is none of ours.
            let fits = value.len() == 22;
            let len = fits
                .then(|| BASE64_URL_SAFE_NO_PAD.decode_slice(value, &mut token).ok())
                .flatten();
            (len == Some(16)).then_some(Token(token))
        })
        .next()
    }

    /// What `Set-Cookie` says for the client to come back to this backend.
    pub fn set(&self, token: Token, tls: bool) -> Option<HeaderValue> {
        let mut cookie = format!("{}=", self.name);
        BASE64_URL_SAFE_NO_PAD.encode_string(token.0, &mut cookie);
        // Into a String: never fails.
        let _ = cookie.write_str(&self.attributes);
        if self.secure.unwrap_or(tls) {
            cookie.push_str("; Secure");
        }
        HeaderValue::try_from(cookie).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::COOKIE;
    use std::time::Duration;

    fn key(secret: u64) -> SessionKey {
        SessionKey::new(HashKey([secret, 1]))
    }

    #[test]
    fn cookies_come_back() {
        let cookie = Cookie::new(&Sticky::default());
        let token = key(1).token("web", "web1");
        let set = cookie.set(token, true).unwrap();
        let set = set.to_str().unwrap();
        let (pair, attributes) = set.split_once(';').unwrap();
        assert_eq!(attributes, " Path=/; HttpOnly; SameSite=Lax; Secure");
        assert!(!set.contains("web1"));
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, format!("a=b; weir=old; {pair}").parse().unwrap());
        assert_eq!(cookie.read(&headers), Some(token));

        let other = Cookie::new(&Sticky {
            enabled: true,
            cookie: "s".to_owned(),
            path: "/app".to_owned(),
            domain: Some("example.org".to_owned()),
            max_age: Some(Duration::from_secs(90)),
            secure: Some(false),
            http_only: false,
            same_site: SameSite::Strict,
        });
        let set = other.set(token, true).unwrap();
        let expected = "; Path=/app; Domain=example.org; Max-Age=90; SameSite=Strict";
        assert!(set.to_str().unwrap().ends_with(expected), "{set:?}");
        assert_eq!(other.read(&headers), None);
    }

    #[test]
    fn tokens_differ() {
        let web1 = key(1).token("web", "web1");
        assert_eq!(web1, key(1).token("web", "web1"));
        for other in [
            key(2).token("web", "web1"),
            key(1).token("web", "web2"),
            key(1).token("we", "bweb1"),
        ] {
            assert_ne!(web1, other);
        }
    }

    #[test]
    fn what_is_no_token_is_none() {
        let cookie = Cookie::new(&Sticky::default());
        let long = "A".repeat(24);
        for value in ["", "x", "web1", "AAAAAAAAAAAAAAAAAAAAA!", &long] {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, format!("weir={value}").parse().unwrap());
            assert_eq!(cookie.read(&headers), None, "{value}");
        }
    }
}
