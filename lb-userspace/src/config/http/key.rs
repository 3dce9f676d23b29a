//! What tells requests or clients apart.

use std::fmt::{self, Display};

use axum::http::HeaderName;
use serde::{Deserialize, Serialize};

/// A part of a request by which it is hashed or counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Key {
    /// The client's address, after trusted hops and the PROXY header.
    Address,
    /// The host asked for.
    Host,
    /// The path.
    Path,
    /// A header's first value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(String),
    /// A parameter's first value in the query.
    Query(String),
}

impl Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Address => f.write_str("address"),
            Key::Host => f.write_str("host"),
            Key::Path => f.write_str("path"),
            Key::Header(name) => write!(f, "header:{name}"),
            Key::Cookie(name) => write!(f, "cookie:{name}"),
            Key::Query(name) => write!(f, "query:{name}"),
        }
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.to_string()
    }
}

impl TryFrom<String> for Key {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Key, &'static str> {
        const EXPECTED: &str =
            r#"one of "address", "host", "path", "header:NAME", "cookie:NAME" and "query:NAME""#;
        match text.split_once(':') {
            None => match &*text {
                "address" => Ok(Key::Address),
                "host" => Ok(Key::Host),
                "path" => Ok(Key::Path),
                _ => Err(EXPECTED),
            },
            Some(("header", name)) => name.parse().map(Key::Header).map_err(|_| EXPECTED),
            // A cookie's name is a token, as a header's is.
            Some(("cookie", name)) if HeaderName::try_from(name).is_ok() => {
                Ok(Key::Cookie(name.to_owned()))
            }
            Some(("query", name)) if !name.is_empty() => Ok(Key::Query(name.to_owned())),
            Some(_) => Err(EXPECTED),
        }
    }
}
