//! One form for all spellings of a path (RFC 3986, 6.2.2), so that a route cannot be evaded by
//! another spelling of what the backend will understand.

use std::borrow::Cow;

use thiserror::Error;

/// A path that cannot be read in one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a '%' in the path that no two hex digits follow")]
pub struct BadPath;

/// Resolves `.` and `..`, decodes escapes of letters, digits, `-`, `.`, `_` and `~`, and writes the
/// others in capitals. Empty segments stay: they mean something to some backends. `*` (OPTIONS) is
/// left as it is.
///
/// # Errors
///
/// A broken escape.
pub fn normalize(path: &str) -> Result<Cow<'_, str>, BadPath> {
    let mut path = decode(path)?;
    // Every dot segment follows a slash.
    if path.starts_with('/') && path.contains("/.") && has_dots(&path) {
        path = Cow::Owned(resolve(&path));
    }
    Ok(path)
}

fn decode(path: &str) -> Result<Cow<'_, str>, BadPath> {
    let Some(first) = memchr::memchr(b'%', path.as_bytes()) else {
        return Ok(Cow::Borrowed(path));
    };
    let mut decoded = path[..first].to_owned();
    let mut rest = &path[first..];
    while let Some(at) = memchr::memchr(b'%', rest.as_bytes()) {
        decoded.push_str(&rest[..at]);
        let digits = rest.as_bytes().get(at + 1..at + 3).ok_or(BadPath)?;
        let digit = |d: u8| char::from(d).to_digit(16).ok_or(BadPath);
        let byte = (digit(digits[0])? * 16 + digit(digits[1])?) as u8;
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => decoded.push(char::from(byte)),
            false => {
                decoded.push('%');
                decoded.extend(digits.iter().map(|d| char::from(d.to_ascii_uppercase())));
            }
        }
        rest = &rest[at + 3..];
    }
    decoded.push_str(rest);
    Ok(Cow::Owned(decoded))
}

fn has_dots(path: &str) -> bool {
    path.split('/')
        .any(|segment| segment == "." || segment == "..")
}

/// RFC 3986, 5.2.4.
fn resolve(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut rest = path[1..].split('/').peekable();
    while let Some(segment) = rest.next() {
        let last = rest.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    segments.pop();
                }
                // `/a/..` is the directory.
                if last {
                    segments.push("");
                }
            }
            _ => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings() {
        for (path, normal) in [
            ("/", "/"),
            ("*", "*"),
            ("/a/b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/.", "/"),
            ("/a//../b", "/a/b"),
            ("//a//", "//a//"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/%61%2f%7e", "/a%2F~"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/%C3%a4", "/%C3%A4"),
            ("/a%252e", "/a%252e"),
        ] {
            assert_eq!(normalize(path).as_deref(), Ok(normal), "{path}");
        }
        for path in ["/%", "/%4", "/%zz", "/%2", "/a/%+1"] {
            assert_eq!(normalize(path), Err(BadPath), "{path}");
        }
        assert!(matches!(normalize("/a.b/.c"), Ok(Cow::Borrowed(_))));
    }

    proptest! {
        #[test]
        fn normal_paths_stay(path in "/([a.%/]|%2[eEfF]|%41|ä){0,12}") {
            let Ok(normal) = normalize(&path) else { return Ok(()) };
            let again = normalize(&normal);
            prop_assert_eq!(again.as_deref(), Ok(&*normal));
            prop_assert!(normal.starts_with('/'));
            prop_assert!(!has_dots(&normal), "{}", normal);
        }
    }
}
