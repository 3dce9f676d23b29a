//! Distinguished names as text (RFC 4514): the most specific part first, and escaped, so that no
//! value can pass for another part.

use x509_parser::{
    objects::{oid_registry, oid2abbrev},
    prelude::X509Name,
};

/// `CN=client,OU=payments,O=Example`.
pub(super) fn name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for relative in name.iter_rdn() {
        let attributes = relative.iter().map(|attribute| {
            let kind = attribute.attr_type();
            let value = attribute.as_str().unwrap_or_default();
            match oid2abbrev(kind, oid_registry()) {
                Ok(short) => format!("{short}={}", escaped(value)),
                Err(_) => format!("{}={}", kind.to_id_string(), escaped(value)),
            }
        });
        parts.push(attributes.collect::<Vec<_>>().join("+"));
    }
    parts.reverse();
    parts.join(",")
}

/// RFC 4514, 2.4; what is not printable ASCII by the hex of its bytes, as headers need it.
fn escaped(value: &str) -> String {
    let mut text = String::new();
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => text.extend(['\\', c]),
            '#' if at == 0 => text.push_str("\\#"),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            ' '..='~' => text.push(c),
            _ => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    text.push_str(&format!("\\{byte:02X}"));
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        for (value, expected) in [
            ("a b", "a b"),
            (" a ", "\\ a\\ "),
            ("#a#", "\\#a#"),
            ("a,O=evil", "a\\,O\\=evil"),
            ("ä\n", "\\C3\\A4\\0A"),
        ] {
            assert_eq!(escaped(value), expected);
        }
    }
}
