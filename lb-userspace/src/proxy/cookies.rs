//! Cookies of a request (RFC 6265, 4.2.1).

use http::{HeaderMap, header::COOKIE};

/// Names and values, in the order in which they came; values without their quotes. HTTP/2 sends a
/// header for each (RFC 9113, 8.2.3). What is no pair, or no visible ASCII, is left out.
pub fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.trim(), unquoted(value.trim())))
}

/// The first cookie of that name.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    cookies(headers)
        .find(|(other, _)| *other == name)
        .map(|(_, value)| value)
}

fn unquoted(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_of_all_headers() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=1; b=\"2\";c = 3 ;nonsense; =x".parse().unwrap());
        headers.append(COOKIE, "d=4=5".parse().unwrap());
        let all: Vec<_> = cookies(&headers).collect();
        assert_eq!(
            all,
            [("a", "1"), ("b", "2"), ("c", "3"), ("", "x"), ("d", "4=5")]
        );
        assert_eq!(cookie(&headers, "d"), Some("4=5"));
        assert_eq!(cookie(&headers, "A"), None);
    }
}
