//! The L7 proxy: what serves services of mode `local`.

use regex::Regex;

pub mod cookies;
pub mod headers;
pub mod route;

/// An expression that matches text from its beginning to its end.
///
/// # Errors
///
/// It is none, or would need more than 1 MiB when compiled.
pub(crate) fn regex(expression: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(&format!("^(?:{expression})$"))
        .size_limit(1 << 20)
        .build()
}
